//! Running one program in the sandbox, to its end or to the end of its time. Runs in the helper, which is process 1 there.

use crate::protocol::{Exit, Program, Reply, send};
use nix::{
    errno::Errno,
    sys::{
        signal::{Signal, kill},
        wait::{WaitStatus, waitpid},
    },
    unistd::Pid,
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    pipe::{PipeFlags, pipe_with},
    process::{PidfdFlags, pidfd_open},
};
use std::{
    fs, io,
    io::{Read, Write},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// The most bytes that a pipe has in it when nobody writes to it any more.
const REST_MAX: u64 = 16 << 20;
/// The most names of processes that are told.
const LEFT_MAX: usize = 8;

/// Runs `program` in the tree at `root`, sends what it prints, and ends all that it leaves.
pub(crate) fn run(output: &mut impl Write, root: &Path, program: &Program) -> io::Result<()> {
    let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
    let mut ours = fs::File::from(ours);
    let mut child = Command::new("/proc/self/exe")
        .arg0("aule sandbox")
        .args(["sandbox-helper", "enter"])
        .arg(root)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(theirs.try_clone()?)
        .stderr(theirs)
        .spawn()?;
    // By a pipe, as one argument has at most 128 KiB (execve(2)). Whoever ends before it has read all of it says why.
    if let Some(mut input) = child.stdin.take() {
        let _ = send(&mut input, program);
    }
    let number = i32::try_from(child.id()).map_err(io::Error::other)?;
    let pid = rustix::process::Pid::from_raw(number).ok_or_else(|| io::Error::other("a process without a number"))?;
    let watched = pidfd_open(pid, PidfdFlags::empty())?;
    let deadline = Instant::now() + Duration::from_secs(program.limit);
    let mut bytes = vec![0; 64 << 10];
    let mut timed_out = false;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        let mut watch = [PollFd::new(&ours, PollFlags::IN), PollFd::new(&watched, PollFlags::IN)];
        match poll(&mut watch, Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other?,
        };
        let (printed, ended) = (!watch[0].revents().is_empty(), !watch[1].revents().is_empty());
        let mut length = 0;
        if printed {
            length = ours.read(&mut bytes)?;
            if length > 0 {
                send(output, &Reply::Output(bytes[..length].to_vec()))?;
                output.flush()?;
            }
        }
        if ended {
            break;
        }
        if Instant::now() >= deadline {
            timed_out = true;
            break;
        }
        if printed && length == 0 {
            // It closed its output and goes on.
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    if timed_out {
        child.kill()?;
    }
    let status = child.wait()?;
    let left = end_all()?;
    // What was printed between the last look and the end; nobody has the other end open any more.
    let mut rest = Vec::new();
    (&mut ours).take(REST_MAX).read_to_end(&mut rest)?;
    for piece in rest.chunks(64 << 10) {
        send(output, &Reply::Output(piece.to_vec()))?;
    }
    send(output, &Reply::Exited(Exit { code: status.code(), signal: status.signal(), timed_out, left }))
}

/// Kills whatever is still there, and gives its names. This process is the first of its namespace: it has all the others.
fn end_all() -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(number) = name.to_str().and_then(|it| it.parse::<i32>().ok()) else { continue };
        if number == 1 {
            continue;
        }
        let Ok(stat) = fs::read_to_string(format!("/proc/{number}/stat")) else { continue };
        // `pid (name) state …`; a zombie has ended already.
        let Some((before, after)) = stat.rsplit_once(')') else { continue };
        if after.trim_start().starts_with('Z') {
            continue;
        }
        let name = before.split_once('(').map_or("", |(_, name)| name);
        names.push(name.chars().filter(|it| !it.is_control()).collect::<String>());
    }
    names.sort();
    names.truncate(LEFT_MAX);
    match kill(Pid::from_raw(-1), Signal::SIGKILL) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => return Err(error.into()),
    }
    loop {
        match waitpid(None, None) {
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(names),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
