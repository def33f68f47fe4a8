//! The host's side of a sandbox.

use crate::{
    Result, SandboxError,
    emulator::emulator,
    helper::ARGUMENT,
    identifiers::map,
    protocol::{Entry, Exit, Program, Reply, Request, What, receive, send},
};
use std::{
    io,
    io::{BufReader, BufWriter, Read, Write},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread::JoinHandle,
};

/// The most that is kept of what the helper itself prints.
const STDERR_MAX: u64 = 64 << 10;

/// What a sandbox takes from the machine that it is on.
#[derive(Debug, Clone)]
pub struct Host {
    /// A program whose `main` calls [`crate::helper`] first: most likely this one.
    pub program: PathBuf,
    /// Where trees and changes are, each in a directory with a name of its own.
    pub directory: PathBuf,
    /// Where programs of the host are looked for: `newuidmap`, `newgidmap`, QEMU.
    pub search: Vec<PathBuf>,
}

/// What programs see.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// Names of trees, the first one highest.
    pub trees: &'a [&'a str],
    /// The name of the new directory that changes go to.
    pub changes: &'a str,
    /// The name of a directory of the host's that is to be seen at `/run/aule`.
    pub shown: Option<&'a str>,
    /// Debian's name of the tree's architecture.
    pub architecture: &'a str,
    /// The name of a directory with programs of this machine's own architecture, as [`crate::Native`] has it.
    pub native: Option<&'a str>,
}

/// A sandbox that runs.
pub struct Sandbox {
    child: Child,
    // Closed to end the helper.
    input: Option<BufWriter<ChildStdin>>,
    output: BufReader<ChildStdout>,
    stderr: Option<JoinHandle<String>>,
    host: Host,
}

impl Sandbox {
    /// Starts one.
    ///
    /// # Errors
    /// [`SandboxError::Missing`] where the machine does not let its users have one, with what would help.
    pub fn start(host: &Host) -> Result<Sandbox> {
        let mut command = Command::new(&host.program);
        command.arg0("aule sandbox").args([ARGUMENT, "outer"]).env_clear().current_dir(&host.directory);
        let streams = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = streams.spawn().map_err(SandboxError::Start)?;
        let piped = || SandboxError::Broken("it has no pipe".into());
        let input = BufWriter::with_capacity(1 << 16, child.stdin.take().ok_or_else(piped)?);
        let output = BufReader::with_capacity(1 << 16, child.stdout.take().ok_or_else(piped)?);
        let errors = child.stderr.take().ok_or_else(piped)?;
        let stderr = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let mut errors = errors.take(STDERR_MAX);
            // What was read before an error is what there is to tell.
            let _ = errors.read_to_end(&mut bytes);
            let _ = io::copy(&mut errors.into_inner(), &mut io::sink());
            String::from_utf8_lossy(&bytes).into_owned()
        });
        let mut sandbox = Sandbox { child, input: Some(input), output, stderr: Some(stderr), host: host.clone() };
        match sandbox.reply() {
            Ok(Reply::Namespace) => {}
            Ok(_) => return Err(SandboxError::Broken("it says something else first".into())),
            Err(SandboxError::Failed { what, .. }) => return Err(no_namespaces(&what)),
            Err(error) => return Err(error),
        }
        map(sandbox.child.id(), &host.search)?;
        sandbox.request(&Request::Mapped)?;
        match sandbox.done() {
            Err(SandboxError::Failed { what, .. }) => Err(no_namespaces(&what)),
            other => other.map(|()| sandbox),
        }
    }

    /// Whether there is a directory of this name.
    ///
    /// # Errors
    /// When the helper fails.
    pub fn has(&mut self, name: &str) -> Result<bool> {
        self.request(&Request::Has { name: name.into() })?;
        match self.reply()? {
            Reply::Is(is) => Ok(is),
            _ => Err(unexpected()),
        }
    }

    /// Makes a tree in a directory of this name, of what `write` gives. It is there whole, or not at all.
    ///
    /// # Errors
    /// When it cannot be written; the sandbox is of no more use then.
    pub fn unpack<E: From<SandboxError>>(
        &mut self,
        name: &str,
        write: impl FnOnce(&mut Unpacker<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.request(&Request::Unpack { name: name.into() })?;
        let mut unpacker = Unpacker { sandbox: self, left: 0 };
        write(&mut unpacker)?;
        if unpacker.left > 0 {
            return Err(SandboxError::Input(io::ErrorKind::UnexpectedEof.into()).into());
        }
        self.request(&Request::End)?;
        Ok(self.done()?)
    }

    /// Mounts the view's trees over each other.
    ///
    /// # Errors
    /// When the host cannot do it.
    pub fn open(&mut self, view: &View<'_>) -> Result<()> {
        let View { trees, changes, shown, architecture, native } = *view;
        let emulator = emulator(architecture, native.is_some(), &self.host.search)?;
        let foreign = emulator.is_some();
        self.request(&Request::Open {
            trees: trees.iter().map(|it| (*it).to_owned()).collect(),
            changes: changes.into(),
            shown: shown.map(str::to_owned),
            native: native.map(str::to_owned),
            emulator,
        })?;
        self.done().map_err(|error| match error {
            SandboxError::Failed { what, .. } if foreign && what.contains("binfmt_misc") => SandboxError::Missing {
                what: format!("programs of {architecture} cannot be run here: {what}"),
                help: "Linux 6.7 or later lets a user do it; before that build on a machine of the architecture".into(),
            },
            SandboxError::Failed { what, .. } if what.contains("overlay") => SandboxError::Missing {
                what,
                help: "Linux 5.11 or later is needed, and a store on ext4, xfs or btrfs: give one with `--store`"
                    .into(),
            },
            other => other,
        })
    }

    /// Runs a program in the tree to its end; `printed` gets what it prints.
    ///
    /// # Errors
    /// When it cannot be started. How it ended is no error.
    pub fn run(&mut self, program: &Program, printed: &mut dyn FnMut(&[u8])) -> Result<Exit> {
        self.request(&Request::Run(program.clone()))?;
        loop {
            match self.reply()? {
                Reply::Output(bytes) => printed(&bytes),
                Reply::Exited(exit) => return Ok(exit),
                _ => return Err(unexpected()),
            }
        }
    }

    /// What changed since [`Sandbox::open`], in the order of the paths: `keep` gets each entry with the bytes of a file.
    ///
    /// # Errors
    /// When it cannot be read, or `keep` fails; the sandbox is of no more use then.
    pub fn capture<E: From<SandboxError>>(
        &mut self,
        mut keep: impl FnMut(Entry, &mut dyn Read) -> Result<(), E>,
    ) -> Result<(), E> {
        self.request(&Request::Capture)?;
        loop {
            match self.reply()? {
                Reply::Entry(entry) => {
                    let size = if let What::File { size, .. } = entry.what { size } else { 0 };
                    let mut bytes = (&mut self.output).take(size);
                    keep(entry, &mut bytes)?;
                    io::copy(&mut bytes, &mut io::sink()).map_err(SandboxError::Output)?;
                    if bytes.limit() > 0 {
                        return Err(SandboxError::Broken("a file ended early".into()).into());
                    }
                }
                Reply::End => return Ok(()),
                _ => return Err(unexpected().into()),
            }
        }
    }

    /// Takes the mounts away.
    ///
    /// # Errors
    /// When the helper fails.
    pub fn close(&mut self) -> Result<()> {
        self.request(&Request::Close)?;
        self.done()
    }

    /// Removes a directory, whoever owns what is in it.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(&mut self, name: &str) -> Result<()> {
        self.request(&Request::Remove { name: name.into() })?;
        self.done()
    }

    fn request(&mut self, request: &Request) -> Result<()> {
        let sent = match &mut self.input {
            Some(input) => send(input, request).and_then(|()| match request {
                Request::Entry(_) => Ok(()),
                _ => input.flush(),
            }),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        };
        sent.map_err(|error| self.broken(&error))
    }

    fn reply(&mut self) -> Result<Reply> {
        match receive(&mut self.output) {
            Ok(Reply::Failed { what, errno }) => Err(SandboxError::Failed { what, errno }),
            Ok(reply) => Ok(reply),
            Err(error) => Err(self.ended(&error)),
        }
    }

    fn done(&mut self) -> Result<()> {
        match self.reply()? {
            Reply::Done => Ok(()),
            _ => Err(unexpected()),
        }
    }

    /// The helper takes nothing any more: perhaps it said why.
    fn broken(&mut self, error: &io::Error) -> SandboxError {
        self.input = None;
        if error.kind() != io::ErrorKind::BrokenPipe {
            return self.ended(error);
        }
        match receive(&mut self.output) {
            Ok(Reply::Failed { what, errno }) => SandboxError::Failed { what, errno },
            _ => self.ended(error),
        }
    }

    fn ended(&mut self, error: &io::Error) -> SandboxError {
        self.input = None;
        let _ = self.child.kill();
        let status = self.child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
        let said = self.stderr.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        let said = said.trim();
        SandboxError::Broken(if said.is_empty() { format!("{error} ({status})") } else { format!("{said} ({status})") })
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // The helper ends when nothing more can come, and with it all that runs inside.
        drop(self.input.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Takes the entries of a tree.
pub struct Unpacker<'a> {
    sandbox: &'a mut Sandbox,
    left: u64,
}

impl Unpacker<'_> {
    /// An entry: a directory before what is in it, a file before its other names. The bytes of a file are written next.
    ///
    /// # Errors
    /// When the helper fails, or the file before has not got all its bytes.
    pub fn entry(&mut self, entry: Entry) -> Result<()> {
        if self.left > 0 {
            return Err(SandboxError::Input(io::ErrorKind::UnexpectedEof.into()));
        }
        self.left = if let What::File { size, .. } = entry.what { size } else { 0 };
        self.sandbox.request(&Request::Entry(entry))
    }

    /// The next bytes of the file.
    ///
    /// # Errors
    /// When the helper fails, or there are more bytes than the entry said.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        let left = self.left.checked_sub(bytes.len() as u64);
        self.left = left.ok_or_else(|| SandboxError::Input(io::ErrorKind::InvalidData.into()))?;
        let sent = match &mut self.sandbox.input {
            Some(input) => input.write_all(bytes),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        };
        sent.map_err(|error| self.sandbox.broken(&error))
    }
}

fn unexpected() -> SandboxError {
    SandboxError::Broken("it says something else than what it was asked".into())
}

fn no_namespaces(what: &str) -> SandboxError {
    SandboxError::Missing {
        what: format!("this machine gives no user namespaces, in which packages are installed: {what}"),
        help: "on Ubuntu run `sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0`, on Debian `sudo sysctl \
               kernel.unprivileged_userns_clone=1`; a container needs `--privileged`, or seccomp and AppArmor profiles that \
               allow them"
            .into(),
    }
}
