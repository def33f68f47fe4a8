//! As much HTTP/1.1 (RFC 9112) as a node needs: one request a connection, as cloud-init makes them, from the node's address.

use crate::{
    failure::{Doing, Failure, Result, failure},
    rpc,
};
use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The longest answer that is taken.
const ANSWER_MAX: usize = 4 << 20;
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a server may say that it is busy.
const BUSY_MAX: u32 = 60;

/// Host, port and path of a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url {
    /// Where the server is.
    pub(crate) server: SocketAddr,
    /// What is asked for there; begins with `/`.
    pub(crate) path: String,
}

impl Url {
    /// Reads `http://ADDRESS[:PORT]/PATH`.
    ///
    /// # Errors
    /// When it is something else.
    pub(crate) fn parse(text: &str) -> Result<Url> {
        let wrong = || Failure("a URL is not http://ADDRESS[:PORT]/PATH".into());
        let rest = text.strip_prefix("http://").ok_or_else(wrong)?;
        let (host, path) = rest.split_at(rest.find('/').ok_or_else(wrong)?);
        let server = match host.parse() {
            Ok(server) => server,
            Err(_) => (host.parse::<Ipv4Addr>().map_err(|_| wrong())?, 80).into(),
        };
        Ok(Url { server, path: path.into() })
    }
}

/// Asks, again where the server says that it is busy, and gives the body of an answer that is good.
///
/// # Errors
/// When there is none.
pub(crate) async fn ask(from: Ipv4Addr, method: &str, url: &Url, body: &[u8]) -> Result<Vec<u8>> {
    for _ in 0..BUSY_MAX {
        let asked = tokio::time::timeout(PATIENCE, once(from, method, url, body)).await;
        let answer = asked.map_err(|_| Failure("HTTP: no answer".into()))?.doing("HTTP")?;
        match answer.status {
            200..=299 => return Ok(answer.body),
            503 => tokio::time::sleep(Duration::from_secs(answer.retry_after.unwrap_or(1))).await,
            status => return failure(format!("HTTP: status {status}")),
        }
    }
    failure("HTTP: the server stays busy")
}

async fn once(from: Ipv4Addr, method: &str, url: &Url, body: &[u8]) -> Result<Answer> {
    let mut stream = rpc::connect(from, url.server).await?;
    let head = format!(
        "{method} {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: Cloud-Init/load\r\nAccept: */*\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n",
        url.path,
        url.server,
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body].concat()).await?;
    let mut bytes = Vec::new();
    stream.take(ANSWER_MAX as u64 + 1).read_to_end(&mut bytes).await?;
    if bytes.len() > ANSWER_MAX { failure("an answer is too long") } else { Answer::parse(&bytes) }
}

#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    retry_after: Option<u64>,
    body: Vec<u8>,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Result<Answer> {
        let Some(end) = bytes.windows(4).position(|it| it == b"\r\n\r\n") else { return failure("an answer is cut") };
        let (head, body) = (bytes.get(..end).unwrap_or_default(), bytes.get(end + 4..).unwrap_or_default());
        let head = std::str::from_utf8(head).doing("the head of an answer")?;
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|it| it.split(' ').nth(1)).and_then(|it| it.parse().ok());
        let Some(status) = status else { return failure("an answer has no status") };
        let (mut length, mut retry_after, mut chunked) = (None, None, false);
        for (name, value) in lines.filter_map(|it| it.split_once(':')) {
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.trim().parse::<usize>().ok(),
                "retry-after" => retry_after = value.trim().parse().ok(),
                "transfer-encoding" => chunked = value.trim().eq_ignore_ascii_case("chunked"),
                _ => {}
            }
        }
        let body = match (chunked, length) {
            (true, _) => chunks(body)?,
            (false, Some(length)) if length != body.len() => return failure("an answer is not as long as it says"),
            _ => body.to_vec(),
        };
        Ok(Answer { status, retry_after, body })
    }
}

fn chunks(mut bytes: &[u8]) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let cut = || Failure("an answer is cut".into());
        let end = bytes.windows(2).position(|it| it == b"\r\n").ok_or_else(cut)?;
        let size = std::str::from_utf8(bytes.get(..end).unwrap_or_default()).doing("a chunk")?;
        let size = usize::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16).doing("a chunk")?;
        if size == 0 {
            return Ok(body);
        }
        body.extend_from_slice(bytes.get(end + 2..end + 2 + size).ok_or_else(cut)?);
        bytes = bytes.get(end + 2 + size + 2..).ok_or_else(cut)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let url = |server: &str, path: &str| Ok(Url { server: server.parse().unwrap(), path: path.into() });
        assert_eq!(Url::parse("http://127.0.0.1:8080/seed/n/"), url("127.0.0.1:8080", "/seed/n/"));
        assert_eq!(Url::parse("http://127.0.0.1/"), url("127.0.0.1:80", "/"));
        for wrong in ["https://127.0.0.1/", "http://127.0.0.1", "http://host/", ""] {
            assert!(Url::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn answers() {
        let answer = |text: &str| Answer::parse(text.as_bytes());
        let good = |body: &[u8]| Ok(Answer { status: 200, retry_after: None, body: body.to_vec() });
        assert_eq!(answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"), good(b"hi"));
        assert_eq!(
            answer("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nh\r\n1\r\ni\r\n0\r\n\r\n"),
            good(b"hi")
        );
        let busy = answer("HTTP/1.1 503 Later\r\nRetry-After: 7\r\n\r\n").unwrap();
        assert_eq!((busy.status, busy.retry_after), (503, Some(7)));
        for wrong in ["HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi", "HTTP/1.1 200 OK", "HTTP\r\n\r\n"] {
            assert!(answer(wrong).is_err(), "{wrong}");
        }
    }
}
