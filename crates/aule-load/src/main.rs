//! Plays netbooting nodes against a running server, each with an address of its own out of 127.0.0.0/8, and tells how they
//! fared; and measures single protocols, for comparing servers.

mod checksum;
mod dhcp;
mod failure;
mod http;
mod nfs;
mod node;
mod report;
mod root;
mod rpc;
mod single;
mod tftp;
mod xdr;

use clap::{Args, Parser, Subcommand};
use failure::{Doing, Failure, Result, failure};
use node::{Boot, Plan};
use report::Report;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use single::{Measured, Mounted};
use std::{
    io::Write,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

/// The most nodes: what is left of the addresses.
const NODES_MAX: u32 = 60_000;

#[derive(Debug, Parser)]
#[command(name = "aule-load", about = "Play netbooting nodes against a running server, or measure a single protocol")]
struct Arguments {
    /// Write the result as one JSON object
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Boot nodes: DHCP, boot files, root, seed, report
    Boot(BootArguments),
    /// Fetch a file over TFTP
    Tftp(TftpArguments),
    /// Read over NFS
    Nfs(NfsArguments),
}

#[derive(Debug, Args)]
struct BootArguments {
    /// The server's address
    #[arg(long, default_value = "127.0.0.1")]
    server: Ipv4Addr,
    /// Its port for TFTP
    #[arg(long, default_value_t = 69)]
    tftp: u16,
    /// Its port mapper's; the ports of MOUNT and NFS are asked there, that of HTTP stands in the command line
    #[arg(long, default_value_t = 111)]
    portmap: u16,
    /// Its port for ProxyDHCP; nodes begin with TFTP without it
    #[arg(long, value_name = "PORT")]
    proxy_dhcp: Option<u16>,
    /// How many nodes
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=i64::from(NODES_MAX)))]
    nodes: u32,
    /// Over how many seconds they start
    #[arg(long, default_value_t = 0.0, value_name = "SECONDS")]
    ramp: f64,
    /// Name of the kernel among the boot files
    #[arg(long, default_value = "vmlinuz")]
    kernel: String,
    /// Name of the initramfs among the boot files
    #[arg(long, default_value = "initrd.img")]
    initrd: String,
    /// What nodes read of their root, `read PATH` or `list PATH` a line; a recorded boot without it
    #[arg(long, value_name = "FILE")]
    reads: Option<PathBuf>,
    /// Only so many of these lines
    #[arg(long, value_name = "N")]
    steps: Option<usize>,
    /// Of each file only so many bytes
    #[arg(long, value_name = "BYTES", default_value_t = u64::MAX, hide_default_value = true)]
    read_max: u64,
    /// After how many seconds a node counts as failed
    #[arg(long, default_value_t = 300.0, value_name = "SECONDS")]
    deadline: f64,
}

#[derive(Debug, Args)]
struct TftpArguments {
    /// Where the server is
    #[arg(long, value_name = "ADDRESS:PORT")]
    server: SocketAddr,
    /// How many clients at once
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    clients: u32,
    /// Bytes of a block
    #[arg(long, default_value_t = 1468, value_parser = clap::value_parser!(u16).range(8..=65464))]
    blksize: u16,
    /// Blocks that come without being acknowledged each
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    window: u16,
    /// A file that every client must get
    #[arg(long, value_name = "FILE")]
    expect: Option<PathBuf>,
    /// The file
    name: String,
}

#[derive(Debug, Args)]
struct NfsArguments {
    /// Where the server is
    #[arg(long, value_name = "ADDRESS:PORT")]
    server: SocketAddr,
    /// The port of MOUNT; that of NFS without it
    #[arg(long, value_name = "PORT")]
    mount: Option<u16>,
    /// How many calls are on their way
    #[arg(long, default_value_t = 8, value_name = "N")]
    depth: usize,
    /// What is mounted
    #[arg(long, value_name = "PATH")]
    export: String,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// A file from its beginning to its end
    Read {
        /// The file, without symlinks
        path: String,
    },
    /// Every file of a directory: READDIRPLUS, then LOOKUP, ACCESS and READ of each
    Small {
        /// The directory, without symlinks
        path: String,
    },
    /// Everything, listed with READDIRPLUS
    Walk,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let told = match &arguments.command {
        Command::Boot(boot) => run_boot(boot).and_then(|report| {
            let text = if arguments.json { json(&report)? } else { report.to_string() };
            Ok((text, report.failed == 0))
        }),
        Command::Tftp(tftp) => run_tftp(tftp).and_then(|it| Ok((shown(&it, arguments.json)?, true))),
        Command::Nfs(nfs) => run_nfs(nfs).and_then(|it| Ok((shown(&it, arguments.json)?, true))),
    };
    match told {
        Ok((text, good)) => match writeln!(std::io::stdout(), "{text}") {
            Ok(()) if good => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        },
        Err(error) => {
            // Nobody is left to be told where this fails, too.
            let _ = writeln!(std::io::stderr(), "aule-load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn json(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(value).doing("JSON")
}

fn shown(it: &Measured, as_json: bool) -> Result<String> {
    if as_json {
        return json(it);
    }
    let rate = it.bytes as f64 / it.seconds / f64::from(1 << 20);
    let (bytes, items) = (it.bytes >> 20, it.items);
    let mut text = format!("{:.3} s, {bytes} MiB, {rate:.0} MiB/s, {items} items", it.seconds);
    if let Some(window) = it.window {
        text.push_str(&format!(", window {window}, {} sent again, {} unexpected", it.repeated, it.unexpected));
    }
    if let Some(sum) = &it.checksum {
        text.push_str(&format!(", sum {sum}"));
    }
    Ok(text)
}

fn run_tftp(arguments: &TftpArguments) -> Result<Measured> {
    let expected = arguments.expect.as_ref().map(std::fs::read).transpose().doing("the expected file")?;
    let TftpArguments { server, clients, blksize, window, name, .. } = arguments;
    let request = tftp::Request { name: name.clone(), block: *blksize, window: *window, probe: false };
    single::tftp(*server, &request, *clients, expected)
}

fn run_nfs(arguments: &NfsArguments) -> Result<Measured> {
    let mount = SocketAddr::new(arguments.server.ip(), arguments.mount.unwrap_or(arguments.server.port()));
    let mut mounted = Mounted::open(mount, arguments.server, &arguments.export, arguments.depth)?;
    match &arguments.what {
        What::Read { path } => mounted.read(path),
        What::Small { path } => mounted.small(path),
        What::Walk => mounted.walk(),
    }
}

fn run_boot(arguments: &BootArguments) -> Result<Report> {
    // Every node has up to three sockets. Where the limit cannot be raised, nodes fail and say so.
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let record = arguments.reads.as_ref().map(std::fs::read_to_string).transpose().doing("the record of reads")?;
    let mut steps = root::steps(record.as_deref().unwrap_or(root::RECORDED))?;
    steps.truncate(arguments.steps.unwrap_or(usize::MAX));
    let seconds = |it: f64| Duration::try_from_secs_f64(it).doing("a number of seconds");
    let plan = Plan {
        server: arguments.server,
        tftp: arguments.tftp,
        portmap: arguments.portmap,
        proxy_dhcp: arguments.proxy_dhcp,
        kernel: arguments.kernel.clone(),
        initrd: arguments.initrd.clone(),
        steps,
        read_max: arguments.read_max,
        deadline: seconds(arguments.deadline)?,
        first: Mutex::default(),
    };
    let pause = seconds(arguments.ramp)? / arguments.nodes;
    // One thread, so that most of the machine is the server's.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (boots, elapsed) = runtime.block_on(boot_all(Arc::new(plan), arguments.nodes, pause));
    if boots.is_empty() { failure("there was no node") } else { Ok(Report::of(&boots, elapsed)) }
}

async fn boot_all(plan: Arc<Plan>, nodes: u32, pause: Duration) -> (Vec<Result<Boot>>, Duration) {
    let begin = Instant::now();
    let mut booting = JoinSet::new();
    for number in 0..nodes {
        let plan = Arc::clone(&plan);
        booting.spawn(async move {
            tokio::time::sleep(pause * number).await;
            node::boot(&plan, number).await
        });
    }
    let mut boots = Vec::new();
    while let Some(joined) = booting.join_next().await {
        boots.push(joined.unwrap_or_else(|_| Err(Failure("the node panicked".into()))));
    }
    (boots, begin.elapsed())
}
