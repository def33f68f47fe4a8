//! `aule nodes`: what the nodes of a server did, and where those are that did not come up.

use super::site;
use crate::{
    failure::Failure,
    output::{self, Format},
};
use serde::{Deserialize, Serialize};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    time::Duration,
};

/// The longest answer that is read.
const ANSWER_MAX: u64 = 64 << 20;

/// The answer of a server, as far as it is shown.
#[derive(Debug, Deserialize, Serialize)]
struct Answer {
    /// The server's clock, in seconds since 1970.
    now: u64,
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize, Serialize)]
struct Node {
    name: Option<String>,
    address: Option<IpAddr>,
    identity: serde_json::Value,
    image: Option<String>,
    digest: Option<String>,
    boot: u64,
    stage: String,
    since: Option<u64>,
    last: Option<u64>,
    hint: String,
    events: Vec<Event>,
}

#[derive(Debug, Deserialize, Serialize)]
struct Event {
    at: u64,
    stage: String,
    what: String,
}

/// `aule nodes`; `place` is a site file, or the address of a server.
pub(super) fn run(place: &str, only: Option<&str>, format: Format) -> Result<(), Failure> {
    let server = if place.starts_with("http://") { place.trim_end_matches('/').to_owned() } else { server(place)? };
    let mut answer = ask(&server)?;
    answer.nodes.retain(|node| only.is_none_or(|only| node.name.as_deref() == Some(only)));
    if let (Some(only), []) = (only, answer.nodes.as_slice()) {
        return Err(
            Failure::new(format!("{server} knows no node `{only}`")).hint("`aule nodes` without a name shows all")
        );
    }
    match format {
        Format::Json => output::json(&answer),
        Format::Text => output::write(table(&answer, only.is_some()).as_bytes()),
    }
}

/// Where the server of a site file is asked on this machine.
fn server(place: &str) -> Result<String, Failure> {
    let path = Path::new(place);
    let site = site::read(path).map_err(|failure| match path.exists() {
        true => failure,
        false => failure.hint(format!("a site file is wanted, or the address of a server: http://{place}")),
    })?;
    let listen = site
        .listen
        .http
        .ok_or_else(|| Failure::new(format!("{} turns HTTP off, so nobody can be asked", path.display())))?;
    let address = match listen.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        address => address,
    };
    Ok(format!("http://{}", SocketAddr::new(address, listen.port())))
}

fn ask(server: &str) -> Result<Answer, Failure> {
    let failed = |error: ureq::Error| {
        Failure::new(format!("cannot ask {server}: {error}"))
            .hint("does `aule serve` run there, and is its HTTP port open?")
    };
    // A server in the local network is never behind a proxy.
    let agent = ureq::Agent::config_builder().proxy(None).timeout_global(Some(Duration::from_secs(20))).build();
    let mut answer = ureq::Agent::from(agent).get(format!("{server}/nodes")).call().map_err(failed)?;
    let text = answer.body_mut().with_config().limit(ANSWER_MAX).read_to_string().map_err(failed)?;
    serde_json::from_str(&text)
        .map_err(|error| Failure::new(format!("{server} gave an answer that is not understood: {error}")))
}

/// A text of the server, which has it from anybody, without line feeds and escapes of a terminal.
fn plain(text: &str) -> String {
    text.chars().map(|it| if it.is_control() { it.escape_default().to_string() } else { it.to_string() }).collect()
}

fn table(answer: &Answer, events: bool) -> String {
    if answer.nodes.is_empty() {
        return "no node has asked for anything yet\n".into();
    }
    let mut rows = vec![["NODE", "ADDRESS", "IMAGE", "BUILD", "BOOT", "STAGE", "FOR", "SEEN"].map(str::to_owned)];
    let dash = || "-".to_owned();
    let ago = |at: Option<u64>| at.map_or_else(dash, |at| duration(answer.now.saturating_sub(at)));
    for node in &answer.nodes {
        rows.push([
            node.name.as_deref().map_or_else(dash, plain),
            node.address.map_or_else(dash, |it| it.to_string()),
            node.image.as_deref().map_or_else(dash, plain),
            node.digest
                .as_deref()
                .map(plain)
                .map_or_else(dash, |it| it.trim_start_matches("sha256:").chars().take(12).collect()),
            node.boot.to_string(),
            plain(&node.stage),
            ago(node.since),
            ago(node.last),
        ]);
    }
    let mut text = String::new();
    let widths: Vec<usize> =
        (0..8).map(|at| rows.iter().filter_map(|row| row.get(at)).map(String::len).max().unwrap_or(0)).collect();
    for (number, row) in rows.iter().enumerate() {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
        let Some(node) = number.checked_sub(1).and_then(|at| answer.nodes.get(at)) else { continue };
        if events {
            let begin = node.events.first().map_or(0, |it| it.at);
            for event in &node.events {
                let after = duration(event.at.saturating_sub(begin));
                text.push_str(&format!("  {after:>8}  {:10}  {}\n", plain(&event.stage), plain(&event.what)));
            }
        }
        if node.stage != "done" {
            text.push_str(&format!("  hint: {}\n", plain(&node.hint)));
        }
    }
    text
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_stopped_shows_where_and_since_when() {
        let node = |name: &str, stage: &str| {
            serde_json::json!({
                "name": name, "address": "192.168.1.7", "identity": {}, "image": "stable",
                "digest": format!("sha256:{}", "ab".repeat(32)), "boot": 2, "stage": stage, "since": 1000, "last": 1300,
                "hint": "do \u{1b}[2Jthis", "events": [{ "at": 990, "stage": "dhcp", "what": "DISCOVER" }],
            })
        };
        let answer = serde_json::json!({ "now": 1400, "nodes": [node("manwe", "mount"), node("varda", "done")] });
        let text = table(&serde_json::from_value(answer).unwrap(), true);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1], "manwe  192.168.1.7  stable  abababababab  2     mount  6 min  100 s");
        assert_eq!(lines[2].split_whitespace().collect::<Vec<_>>(), ["0", "s", "dhcp", "DISCOVER"]);
        assert_eq!((lines[3], text.matches("hint").count()), ("  hint: do \\u{1b}[2Jthis", 1));
    }
}
