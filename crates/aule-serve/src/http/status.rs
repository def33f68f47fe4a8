//! How the nodes and the server are: for people, for programs, for Prometheus.

use super::Shared;
use crate::nodes::{Stage, rule};
use axum::{
    Json,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use serde_json::json;
use std::{fmt::Write as _, sync::atomic::Ordering};

/// All nodes with their timelines, as JSON.
pub(super) async fn nodes(State(shared): State<Shared>) -> Response {
    let server = &shared.server;
    let known = server.nodes.all().into_iter().map(|node| {
        json!({
            "name": node.name,
            "address": node.address,
            "identity": node.identity,
            "image": node.boot.image,
            "digest": node.boot.build.digest,
            "boot": node.boot.number,
            "stage": node.boot.stage,
            "since": node.boot.since,
            "last": node.last,
            "hint": node.boot.hint(),
            "events": node.boot.events,
        })
    });
    let site = server.site();
    // Those that have an address from somebody, or none, and asked this server for nothing yet.
    let waiting = server.nodes.waiting().into_iter().map(|it| {
        let rule = rule(&site, &it.identity);
        let address = it.address.unwrap_or(std::net::Ipv4Addr::UNSPECIFIED.into());
        let name = rule.and_then(|rule| crate::render::name(rule, &it.identity, address).ok());
        json!({
            "name": name,
            "address": it.address,
            "identity": it.identity,
            "image": rule.map(|it| it.image.clone()),
            "digest": null,
            "boot": 0,
            "stage": Stage::Dhcp,
            "since": it.events.first().map(|event| event.at),
            "last": it.events.last().map(|event| event.at),
            "hint": if rule.is_some() { Stage::Dhcp.hint() } else { "no rule of the site matches it" },
            "events": it.events,
        })
    });
    Json(json!({ "now": crate::server::now(), "nodes": known.chain(waiting).collect::<Vec<_>>() })).into_response()
}

/// What Prometheus asks for (text exposition format 0.0.4).
pub(super) async fn metrics(State(shared): State<Shared>) -> Response {
    let server = &shared.server;
    let (nodes, waiting) = (server.nodes.all(), server.nodes.waiting().len());
    let mut text = String::new();
    let mut family = |name: &str, kind: &str, help: &str, samples: &[(String, u64)]| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "# HELP aule_{name} {help}\n# TYPE aule_{name} {kind}");
        for (labels, value) in samples {
            let _ = writeln!(text, "aule_{name}{labels} {value}");
        }
    };
    let stages = Stage::ALL.map(|stage| {
        let count = nodes.iter().filter(|node| node.boot.stage == stage).count();
        let waiting = if stage == Stage::Dhcp { waiting } else { 0 };
        (format!("{{stage=\"{}\"}}", stage.name()), (count + waiting) as u64)
    });
    family("nodes", "gauge", "Nodes by how far their boot came.", &stages);
    // Names are host names and digests: nothing in them needs to be escaped.
    let each = |value: fn(&crate::nodes::Known) -> u64| -> Vec<(String, u64)> {
        nodes.iter().map(|it| (format!("{{node=\"{}\",address=\"{}\"}}", it.name, it.address), value(it))).collect()
    };
    family("node_boots", "counter", "Boots of a node that were seen.", &each(|it| it.boot.number));
    family("node_stage", "gauge", "How far a node came: 0 is dhcp, 5 is done.", &each(|it| it.boot.stage as u64));
    family("node_stage_since_seconds", "gauge", "When it came so far, Unix time.", &each(|it| it.boot.since));
    family("node_last_seen_seconds", "gauge", "When it asked for something last, Unix time.", &each(|it| it.last));
    let started = |it: &crate::nodes::Known| it.boot.events.first().map_or(it.boot.since, |event| event.at);
    let stages: Vec<(String, u64)> = nodes
        .iter()
        .flat_map(|node| {
            let begin = started(node);
            Stage::ALL.into_iter().filter_map(move |stage| {
                let event = node.boot.events.iter().find(|event| event.stage == stage)?;
                let labels =
                    format!("{{node=\"{}\",address=\"{}\",stage=\"{}\"}}", node.name, node.address, stage.name());
                Some((labels, event.at.saturating_sub(begin)))
            })
        })
        .collect();
    family("node_boot_seconds", "gauge", "Seconds from the begin of a boot to a stage.", &stages);
    let images: Vec<(String, u64)> = server
        .images
        .all()
        .into_iter()
        .map(|(name, it)| (format!("{{image=\"{name}\",digest=\"{}\"}}", it.digest), 1))
        .collect();
    family("image_info", "gauge", "What the names of images stand for.", &images);
    let one = |value: u64| [(String::new(), value)];
    let counters = &server.counters;
    family("cache_bytes", "gauge", "Decompressed files in memory.", &one(server.cache.bytes()));
    family("nfs_calls_total", "counter", "NFS calls.", &one(counters.nfs_calls.load(Ordering::Relaxed)));
    family("tftp_bytes_total", "counter", "Bytes of TFTP blocks.", &one(counters.tftp_bytes.load(Ordering::Relaxed)));
    family("http_requests_total", "counter", "HTTP requests.", &one(counters.http_requests.load(Ordering::Relaxed)));
    family(
        "warnings_total",
        "counter",
        "Warnings, repeated ones too.",
        &one(counters.warnings.load(Ordering::Relaxed)),
    );
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}
