//! The helper: what the program does when it is started as the other side of a sandbox.

use crate::{
    capture::{BrokenOff, capture},
    enter::enter,
    mounts::{self, Handled, Mounted, Tried},
    protocol::{Program, Reply, Request, receive, send},
    run::run,
    unpack::unpack,
};
use nix::{
    sched::{CloneFlags, unshare},
    unistd::{Gid, Uid, setgroups, sethostname, setresgid, setresuid},
};
use rustix::process::{Signal, set_parent_process_death_signal};
use std::{
    fs, io,
    io::{BufReader, Write},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Component, Path, PathBuf},
    process::{Command, ExitCode},
    time::Duration,
};

/// The argument that makes a program the helper.
pub(crate) const ARGUMENT: &str = "sandbox-helper";

/// If this process was started to be the helper, is it, and gives its exit code. To be called first of all in `main`,
/// before any thread is started.
pub fn helper() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next()? != ARGUMENT {
        return None;
    }
    let mode = arguments.next()?;
    let result = match mode.to_str() {
        Some("outer") => outer(),
        Some("inner") => inner(),
        Some("enter") => {
            let root = PathBuf::from(arguments.next()?);
            let error = match receive(&mut Direct(rustix::stdio::stdin())) {
                Ok(program) => format!("cannot run {}: {}", name_of(&program), enter(&root, &program)),
                Err(error) => format!("cannot be told what to run: {error}"),
            };
            let _ = writeln!(io::stderr(), "{error}");
            // As a shell has it for a program that cannot be run.
            return Some(ExitCode::from(126));
        }
        _ => return None,
    };
    Some(result.unwrap_or_else(|error| {
        // Whoever started this reads the errors of the protocol there; this is for what goes wrong with the protocol.
        let _ = writeln!(io::stderr(), "{error}");
        ExitCode::FAILURE
    }))
}

fn name_of(program: &Program) -> &str {
    program.arguments.first().map_or("", String::as_str)
}

/// The first process: makes the namespaces, and waits for the second.
fn outer() -> io::Result<ExitCode> {
    close_inherited()?;
    let mut output = io::stdout();
    if let Err(error) = unshare(CloneFlags::CLONE_NEWUSER) {
        fail(&mut output, "making a user namespace", &error.into())?;
        return Ok(ExitCode::FAILURE);
    }
    send(&mut output, &Reply::Namespace)?;
    output.flush()?;
    // Unbuffered: what is not read here is for the second process.
    let mut direct = Direct(rustix::stdio::stdin());
    match receive(&mut direct)? {
        Request::Mapped => {}
        _ => return Err(io::Error::other("a request before the identifiers were mapped")),
    }
    let (root_user, root_group) = (Uid::from_raw(0), Gid::from_raw(0));
    let become_root = || {
        setresgid(root_group, root_group, root_group)?;
        setgroups(&[])?;
        setresuid(root_user, root_user, root_user)?;
        let namespaces = CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWPID
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWCGROUP
            | CloneFlags::CLONE_NEWUTS;
        unshare(namespaces)
    };
    if let Err(error) = become_root() {
        fail(&mut output, "making namespaces", &error.into())?;
        return Ok(ExitCode::FAILURE);
    }
    // After the last change of identity, which takes it back (prctl(2), PR_SET_PDEATHSIG).
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let status = Command::new("/proc/self/exe").arg0("aule sandbox").args([ARGUMENT, "inner"]).env_clear().status()?;
    Ok(match (status.code(), status.signal()) {
        (Some(code), _) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        _ => ExitCode::FAILURE,
    })
}

/// Closes what this process has open beside its standard streams. A directory that whoever started the program left open
/// would be a way out of every mount namespace.
fn close_inherited() -> io::Result<()> {
    let mut open = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        open.extend(entry?.file_name().to_str().and_then(|it| it.parse::<i32>().ok()).filter(|number| *number > 2));
    }
    for number in open {
        match nix::unistd::close(number) {
            // The directory that was just read.
            Ok(()) | Err(nix::errno::Errno::EBADF) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Standard input without a buffer.
struct Direct<'a>(std::os::fd::BorrowedFd<'a>);

impl io::Read for Direct<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(self.0, buffer)?)
    }
}

/// The second process, the first of its namespace: does what is asked.
fn inner() -> io::Result<ExitCode> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let mut input = BufReader::with_capacity(1 << 16, Direct(rustix::stdio::stdin()));
    let mut output = io::BufWriter::with_capacity(1 << 16, io::stdout());
    if let Err(error) = sethostname("localhost").map_err(io::Error::from).and_then(|()| mounts::begin()) {
        fail(&mut output, "setting up", &error)?;
        return Ok(ExitCode::FAILURE);
    }
    send(&mut output, &Reply::Done)?;
    output.flush()?;
    let mut mounted = None;
    loop {
        let request = match receive(&mut input) {
            Ok(request) => request,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(ExitCode::SUCCESS),
            Err(error) => return Err(error),
        };
        let name = word(&request);
        match answer(request, &mut input, &mut output, &mut mounted) {
            Ok(Some(reply)) => send(&mut output, &reply)?,
            Ok(None) => {}
            // The other side waits for the rest of a file: it sees the end of all instead.
            Err(error) if error.get_ref().is_some_and(|inner| inner.is::<BrokenOff>()) => return Err(error),
            Err(error) => fail(&mut output, name, &error)?,
        }
        output.flush()?;
    }
}

fn word(request: &Request) -> &'static str {
    match request {
        Request::Unpack { .. } | Request::Entry(_) | Request::End => "unpacking the tree",
        Request::Open { .. } => "mounting the tree",
        Request::Run(_) => "running a program",
        Request::Capture => "collecting the changes",
        Request::Close | Request::Remove { .. } => "cleaning up",
        Request::Has { .. } | Request::Mapped => "answering",
    }
}

/// Does what is asked; what has an answer of its own gives none.
fn answer(
    request: Request,
    input: &mut BufReader<Direct<'_>>,
    output: &mut impl Write,
    mounted: &mut Option<Mounted>,
) -> io::Result<Option<Reply>> {
    let none = || io::Error::other("no tree is mounted");
    match request {
        Request::Unpack { name } => {
            let part = plain(&format!("{name}.part"))?.to_path_buf();
            remove(&part)?;
            let result = unpack(input, &part);
            if let Err(error) = result {
                // The rest of the entries cannot be told from requests: this helper ends here.
                fail(output, "unpacking the tree", &error)?;
                output.flush()?;
                let _ = remove(&part);
                return Err(error);
            }
            // All of it on the disk before it is there under its name.
            rustix::fs::syncfs(fs::File::open(&part)?)?;
            fs::rename(&part, plain(&name)?)?;
            Ok(Some(Reply::Done))
        }
        Request::Has { name } => Ok(Some(Reply::Is(plain(&name)?.is_dir()))),
        Request::Open { trees, changes, shown, native, emulator } => {
            for name in trees.iter().chain([&changes]).chain(&native) {
                plain(name)?;
            }
            if let Some(emulator) = &emulator {
                mounts::emulate(emulator)?;
            }
            let handled = emulator.as_ref().zip(native.as_deref()).and_then(|(emulator, native)| {
                Some(Handled { emulator: &emulator.program, loader: emulator.loader.as_deref()?, native })
            });
            *mounted = Some(Mounted::open(&trees, &changes, shown.as_deref(), handled)?);
            Ok(Some(Reply::Done))
        }
        Request::Run(program) => {
            run(output, &mounted.as_ref().ok_or_else(none)?.root(), &program)?;
            Ok(None)
        }
        Request::Capture => {
            capture(output, &mounted.as_ref().ok_or_else(none)?.upper())?;
            Ok(None)
        }
        Request::Close => {
            mounted.take().ok_or_else(none)?.unmount()?;
            Ok(Some(Reply::Done))
        }
        Request::Remove { name } => {
            remove(plain(&name)?)?;
            Ok(Some(Reply::Done))
        }
        Request::Mapped | Request::Entry(_) | Request::End => Err(io::Error::other("a request out of order")),
    }
}

/// A name without any `/` or `..`, and without what separates the options of a mount.
fn plain(name: &str) -> io::Result<&Path> {
    let path = Path::new(name);
    let mut components = path.components();
    let is_plain = matches!((components.next(), components.next()), (Some(Component::Normal(_)), None));
    if is_plain && !name.contains([':', ',', '\\']) {
        Ok(path)
    } else {
        Err(io::Error::other(format!("`{name}` is no name of a directory")))
    }
}

/// What a rename says of a name that is taken. (XFS says that a directory with something in it exists.)
const TAKEN: [io::ErrorKind; 3] =
    [io::ErrorKind::DirectoryNotEmpty, io::ErrorKind::NotADirectory, io::ErrorKind::AlreadyExists];

/// How often a directory is tried to be removed in which something appears meanwhile, and how long it is waited before.
const REMOVALS: u32 = 100;
const BETWEEN_REMOVALS: Duration = Duration::from_millis(50);

/// Removes a directory with all below it. Where a build was killed, what ran in its sandbox may still be about to end, and write
/// there.
fn remove(path: &Path) -> io::Result<()> {
    let mut left = 1..REMOVALS;
    loop {
        match remove_all(path) {
            Err(error) if CHANGING.contains(&error.kind()) && left.next().is_some() => {
                std::thread::sleep(BETWEEN_REMOVALS);
            }
            done => return done,
        }
    }
}

/// What is said of a directory that somebody else changes.
const CHANGING: [io::ErrorKind; 3] =
    [io::ErrorKind::DirectoryNotEmpty, io::ErrorKind::AlreadyExists, io::ErrorKind::NotFound];

/// However deep it is: what is deeper than two levels is moved up first, so that neither the length of a path nor the number of
/// open directories grows.
fn remove_all(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Ok(found) if found.is_dir() => {}
        Ok(_) => return fs::remove_file(path),
        Err(error) => return Err(error),
    }
    let mut number: u64 = 0;
    loop {
        let mut is_empty = true;
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let place = entry.path();
            if !entry.file_type()?.is_dir() {
                fs::remove_file(&place)?;
                continue;
            }
            for inner in fs::read_dir(&place)? {
                let inner = inner?;
                if !inner.file_type()?.is_dir() {
                    fs::remove_file(inner.path())?;
                    continue;
                }
                // A name that is taken by a directory with something in it is passed by.
                while let Err(error) = fs::rename(inner.path(), path.join(format!("aule-{number}"))) {
                    if !TAKEN.contains(&error.kind()) {
                        return Err(error);
                    }
                    number += 1;
                }
                number += 1;
                is_empty = false;
            }
            fs::remove_dir(&place)?;
        }
        if is_empty {
            return fs::remove_dir(path);
        }
    }
}

fn fail(output: &mut impl Write, what: &str, error: &io::Error) -> io::Result<()> {
    let tried = error.get_ref().and_then(|inner| inner.downcast_ref::<Tried>());
    let errno = tried.and_then(|tried| tried.errno).or_else(|| error.raw_os_error());
    send(output, &Reply::Failed { what: format!("{what}: {error}"), errno })?;
    output.flush()
}
