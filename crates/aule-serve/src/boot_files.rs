//! The files that one node boots from: those of its build, with what is a template rendered for it.

use crate::{
    nodes::Known,
    published::{BootFile, Published},
    render,
    server::Server,
};
use std::{collections::BTreeMap, net::IpAddr};

/// The largest template.
const TEMPLATE_MAX: u64 = 1 << 20;

/// The text of a file for a node, where it has one of its own: what the recipe marks as a template, and the command line,
/// which names the node's machine id, too. `None` when that fails, which is told.
/// `reached` is the address at which the node asked.
pub(crate) fn rendered(
    server: &Server,
    build: &Published,
    file: &BootFile,
    node: &Known,
    reached: IpAddr,
) -> Option<String> {
    let boot = build.boot.as_ref()?;
    let path = &file.path;
    let bytes = boot.contents().read(&file.content, TEMPLATE_MAX);
    let bytes = bytes.map_err(|error| server.warn(format!("{path} of {}: {error}", build.digest))).ok()?;
    let place = server.place(reached);
    let text = String::from_utf8_lossy(&bytes);
    let text = if file.template {
        render::text(&text, node, &place, &BTreeMap::new())
            .map_err(|error| server.warn(format!("{path} for {}: {error}", node.name)))
            .ok()?
    } else {
        text.into_owned()
    };
    Some(match is_command_line(file) && !text.contains("systemd.machine_id=") {
        true => format!("{} systemd.machine_id={}\n", text.trim_end(), render::machine_id(node)),
        false => text,
    })
}

/// Whether the file is made for each node.
pub(crate) fn is_own(file: &BootFile) -> bool {
    file.template || is_command_line(file)
}

fn is_command_line(file: &BootFile) -> bool {
    file.path.name().eq_ignore_ascii_case(b"cmdline.txt")
}

/// The node's command line.
pub(crate) fn command_line(server: &Server, build: &Published, node: &Known, reached: IpAddr) -> Option<String> {
    let boot = build.boot.as_ref()?;
    let file = [&b"cmdline.txt"[..], b"current/cmdline.txt"].into_iter().find_map(|name| boot.find(name))?;
    rendered(server, build, file, node, reached)
}
