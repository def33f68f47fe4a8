//! A small HTTP server whose faults are written by the test.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

/// What the server does on a connection, after it has read the head of the request.
pub(crate) enum Step {
    /// Sends bytes.
    Send(Vec<u8>),
    /// Sends nothing more until the client closes the connection.
    Stall,
    /// Closes the connection such that the client sees a reset.
    Reset,
}

/// The head of a request.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    /// `GET /path HTTP/1.1`
    pub line: String,
    headers: Vec<(String, String)>,
}

impl Head {
    /// The value of a header, by its name in lower case.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

type Behaviour = dyn Fn(usize, &Head) -> Vec<Step> + Send + Sync;

/// A server on a port of its own; it ends with this value.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    heads: Arc<Mutex<Vec<Head>>>,
    ended: Arc<AtomicBool>,
}

impl Server {
    /// Answers each request with what `behaviour` says for its number, from 0, and its head.
    pub(crate) fn start(behaviour: impl Fn(usize, &Head) -> Vec<Step> + Send + Sync + 'static) -> Self {
        Self::run(behaviour, None)
    }

    /// The same with TLS.
    pub(crate) fn start_tls(
        tls: Arc<rustls::ServerConfig>,
        behaviour: impl Fn(usize, &Head) -> Vec<Step> + Send + Sync + 'static,
    ) -> Self {
        Self::run(behaviour, Some(tls))
    }

    fn run(
        behaviour: impl Fn(usize, &Head) -> Vec<Step> + Send + Sync + 'static,
        tls: Option<Arc<rustls::ServerConfig>>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (heads, ended) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (kept, stop) = (Arc::clone(&heads), Arc::clone(&ended));
        let behaviour: Arc<Behaviour> = Arc::new(behaviour);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let (stream, heads) = (stream.unwrap(), Arc::clone(&kept));
                let (behaviour, tls) = (Arc::clone(&behaviour), tls.clone());
                // A client that goes away is part of many tests: its connection ends, and no more.
                thread::spawn(move || match tls {
                    None => converse(stream, &heads, &*behaviour),
                    Some(tls) => {
                        let session = rustls::ServerConnection::new(tls).unwrap();
                        converse(rustls::StreamOwned::new(session, stream), &heads, &*behaviour)
                    }
                });
            }
        });
        Server { address, heads, ended }
    }

    /// `http://HOST:PORT` and a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The heads of the requests so far.
    pub(crate) fn heads(&self) -> Vec<Head> {
        self.heads.lock().unwrap().clone()
    }

    /// The `Range` headers of the requests so far.
    pub(crate) fn ranges(&self) -> Vec<Option<String>> {
        self.heads().iter().map(|head| head.get("range").map(str::to_owned)).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        // Wakes the listener; where it is gone already there is nothing to wake.
        let _ = TcpStream::connect(self.address);
    }
}

fn converse(mut stream: impl Read + Write, heads: &Mutex<Vec<Head>>, behaviour: &Behaviour) -> Option<()> {
    // The last byte of the head is left in the system's buffer: closing a socket with unread input resets it.
    let head = read_head(&mut stream)?;
    let number = {
        let mut heads = heads.lock().unwrap();
        heads.push(head.clone());
        heads.len() - 1
    };
    let steps = behaviour(number, &head);
    if !matches!(steps.last(), Some(Step::Reset)) {
        stream.read_exact(&mut [0]).ok()?;
    }
    for step in steps {
        match step {
            Step::Send(bytes) => stream.write_all(&bytes).ok()?,
            Step::Stall => while stream.read(&mut [0; 64]).ok()? > 0 {},
            Step::Reset => {}
        }
        stream.flush().ok()?;
    }
    Some(())
}

fn read_head(stream: &mut impl Read) -> Option<Head> {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        text.push(byte[0]);
    }
    let text = String::from_utf8(text).unwrap();
    let mut lines = text.trim_end().split("\r\n");
    let line = lines.next()?.to_owned();
    let headers = lines.map(|line| line.split_once(": ").unwrap()).map(|(n, v)| (n.to_lowercase(), v.into())).collect();
    Some(Head { line, headers })
}

/// Bytes that look like no other part of themselves.
pub(crate) fn content(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

/// An answer with these header lines and this body, and nothing added.
pub(crate) fn answer(status: &str, headers: &[&str], body: &[u8]) -> Vec<u8> {
    let lines: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    [format!("HTTP/1.1 {status}\r\n{lines}\r\n").as_bytes(), body].concat()
}

/// The whole answer of a sound server that has `file` with `etag`: `Range` and `If-Range` are honoured.
pub(crate) fn serve(head: &Head, file: &[u8], etag: &str) -> Vec<u8> {
    let start = head
        .get("range")
        .map(|range| -> usize { range.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse().unwrap() });
    let tag = format!("ETag: {etag}");
    match start.filter(|_| head.get("if-range").is_none_or(|version| version == etag)) {
        None => answer("200 OK", &[&tag, &format!("Content-Length: {}", file.len())], file),
        Some(start) if start < file.len() => {
            let range = format!("Content-Range: bytes {start}-{}/{}", file.len() - 1, file.len());
            let length = format!("Content-Length: {}", file.len() - start);
            answer("206 Partial Content", &[&tag, &range, &length], &file[start..])
        }
        Some(_) => {
            let range = format!("Content-Range: bytes */{}", file.len());
            answer("416 Range Not Satisfiable", &[&range, "Content-Length: 0"], b"")
        }
    }
}

/// The first `length` bytes of the body of an answer, with its head: what a cut leaves.
pub(crate) fn cut(answer: Vec<u8>, length: usize) -> Vec<u8> {
    let body = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    answer[..(body + length).min(answer.len())].to_vec()
}

/// A proxy that makes one tunnel to `to`, whatever it is asked for; returns its address.
pub(crate) fn tunnel(to: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let head = read_head(&mut client).unwrap();
        client.read_exact(&mut [0]).unwrap();
        assert!(head.line.starts_with("CONNECT "), "{}", head.line);
        client.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").unwrap();
        let mut server = TcpStream::connect(to).unwrap();
        let (mut client_too, mut server_too) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        thread::spawn(move || std::io::copy(&mut client_too, &mut server_too));
        // Either end may go away first; then the other one is told by the end of this thread.
        let _ = std::io::copy(&mut server, &mut client);
        let _ = client.shutdown(std::net::Shutdown::Both);
    });
    address
}
