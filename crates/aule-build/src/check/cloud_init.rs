//! The NoCloud documents: user-data, vendor-data and network-config by the schemas that the image's own cloud-init
//! carries, meta-data and embedded files by what is known to go wrong.

use super::{
    Severity,
    context::Context,
    documents::Parts,
    schema::Schema,
    yaml::{Node, NodeKind, Place, Step, dotted, parse, syntax},
};
use crate::{Result, steps::seed::Seed};
use aule_recipe::Document;
use aule_tree::TreePath;
use serde_json::Value;

/// The largest schema that is read.
const SCHEMA_MAX: usize = 4 << 20;
const CLOUD_CONFIG: &str = "schema-cloud-config-v1.json";

/// Where each document of the seed was written.
pub(super) struct Documents {
    pub(super) user_data: Parts,
    vendor_data: Parts,
    network_config: Parts,
    meta_data: Parts,
}

impl Documents {
    /// Reads them.
    pub(super) fn read(context: &Context<'_>) -> Documents {
        let wanted = &context.merged.recipe.cloud_init;
        let several = |documents: &[Document], key: &str| {
            let named: Vec<_> =
                documents.iter().enumerate().map(|(number, it)| (format!("cloud_init.{key}[{number}]"), it)).collect();
            Parts::read(context, &named)
        };
        let one = |document: &Option<Document>, key: &str| {
            let named: Vec<_> = document.iter().map(|it| (format!("cloud_init.{key}"), it)).collect();
            Parts::read(context, &named)
        };
        Documents {
            user_data: several(&wanted.user_data, "user_data"),
            vendor_data: several(&wanted.vendor_data, "vendor_data"),
            network_config: one(&wanted.network_config, "network_config"),
            meta_data: one(&wanted.meta_data, "meta_data"),
        }
    }
}

/// Checks all documents.
pub(super) fn check(context: &mut Context<'_>, seed: &Seed, documents: &Documents) -> Result<()> {
    for (name, bytes, parts) in [
        ("user-data", &seed.user_data, &documents.user_data),
        ("vendor-data", &seed.vendor_data, &documents.vendor_data),
    ] {
        if parts.is_empty() {
            continue;
        }
        if is_template(bytes) {
            let message =
                format!("{name} is a Jinja template, which cloud-init renders on the node; it is not checked");
            let finding = parts.blame_text(context, FIRST, message);
            context.warning(finding);
            continue;
        }
        if !is_cloud_config(bytes) {
            continue;
        }
        if let Some(node) = read(context, name, bytes, parts) {
            by_schema(context, name, &node, CLOUD_CONFIG, parts, Severity::Error)?;
            embedded_files(context, name, &node, parts);
        }
    }
    network_config(context, &seed.network_config, &documents.network_config)?;
    meta_data(context, &seed.meta_data, &documents.meta_data);
    Ok(())
}

const FIRST: Place = Place { line: 1, column: 1, length: 1 };

/// Whether cloud-init renders a document with Jinja first (cloudinit/templater.py, `TYPE_MATCHER`).
pub(super) fn is_template(bytes: &[u8]) -> bool {
    let line = bytes.split(|&b| b == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line).to_lowercase();
    line.strip_prefix("##").is_some_and(|rest| rest.trim_start().starts_with("template:"))
}

/// Whether a document is a `#cloud-config`.
pub(super) fn is_cloud_config(bytes: &[u8]) -> bool {
    let start = bytes.trim_ascii_start();
    let header = start.split(|&b| b == b'\n').next().unwrap_or_default().to_ascii_lowercase();
    header.strip_prefix(b"#cloud-config").is_some_and(|rest| rest.first() != Some(&b'-'))
}

/// The YAML of a document; what cannot be read is a finding.
fn read(context: &mut Context<'_>, name: &str, bytes: &[u8], parts: &Parts) -> Option<Node> {
    match parse(&String::from_utf8_lossy(bytes)) {
        Ok(node) => node,
        Err(fault) => {
            let finding = parts.blame_text(context, fault.place, format!("{name}: {}", fault.message));
            context.error(finding);
            None
        }
    }
}

/// The schema of that name in the image's cloud-init.
fn schema(context: &mut Context<'_>, file: &str) -> Result<Option<Schema>> {
    for python in context.stage.tree.children(&TreePath::new("usr/lib")?) {
        let (directory, _) = python;
        if !directory.name().starts_with(b"python3") {
            continue;
        }
        for packages in ["dist-packages", "site-packages"] {
            let path = directory.join(format!("{packages}/cloudinit/config/schemas/{file}"))?;
            let Some(bytes) = context.bytes(&path)?.filter(|bytes| bytes.len() <= SCHEMA_MAX) else { continue };
            match Schema::parse(&bytes) {
                Ok(schema) => return Ok(Some(schema)),
                Err(error) => {
                    let message = format!("the schema {path} of the image cannot be used: {error}");
                    context.warning(aule_recipe::Diagnostic::new(message));
                    return Ok(None);
                }
            }
        }
    }
    Ok(None)
}

fn by_schema(
    context: &mut Context<'_>,
    name: &str,
    node: &Node,
    file: &str,
    parts: &Parts,
    worst: Severity,
) -> Result<()> {
    let Some(schema) = schema(context, file)? else {
        let message = format!("the image's cloud-init has no {file}, so {name} was not checked by it");
        context.warning(aule_recipe::Diagnostic::new(message));
        return Ok(());
    };
    for problem in schema.problems(&node.json()) {
        let place =
            if problem.path.is_empty() { name.to_owned() } else { format!("{name} `{}`", dotted(&problem.path)) };
        let message = match node.at(&problem.path).map(|it| &it.kind) {
            Some(NodeKind::Date(text)) if !problem.deprecated => {
                format!("{place}: YAML reads {text} as a date; a string needs quotes")
            }
            _ => format!("{place}: {}", problem.message),
        };
        let mut finding = parts.blame(context, node, &problem.path, message);
        if let Some(nearest) = &problem.nearest {
            finding = finding.help(format!("did you mean `{nearest}`?"));
        }
        context.add(if problem.deprecated { Severity::Warning } else { worst }, finding);
    }
    Ok(())
}

/// `write_files` that are YAML or JSON by their names: a manifest with broken indentation is found by its reader only,
/// long after the boot, if at all.
fn embedded_files(context: &mut Context<'_>, name: &str, node: &Node, parts: &Parts) {
    let Some(files) = node.get("write_files") else { return };
    for (number, file) in files.items().iter().enumerate() {
        let Some((path, content)) = file.get("path").and_then(Node::text).zip(file.get("content").and_then(Node::text))
        else {
            continue;
        };
        if file.get("encoding").is_some() || file.get("append").is_some_and(Node::is_true) {
            continue;
        }
        let lower = path.to_ascii_lowercase();
        let wrong = if lower.ends_with(".json") {
            serde_json::from_str::<serde::de::IgnoredAny>(content)
                .err()
                .map(|error| format!("line {} of the content is not valid JSON: {error}", error.line()))
        } else if lower.ends_with(".yaml") || lower.ends_with(".yml") {
            syntax(content)
                .err()
                .map(|fault| format!("line {} of the content is not valid YAML: {}", fault.place.line, fault.message))
        } else {
            None
        };
        if let Some(wrong) = wrong {
            let at = [Step::Key("write_files".into()), Step::Index(number), Step::Key("content".into())];
            let finding = parts.blame(context, node, &at, format!("{name} `{}`: {path}: {wrong}", dotted(&at)));
            context.error(finding);
        }
    }
}

/// NoCloud's network-config: the same with and without `network:` around it.
fn network_config(context: &mut Context<'_>, bytes: &[u8], parts: &Parts) -> Result<()> {
    let name = "network-config";
    let Some(node) = (if parts.is_empty() { None } else { read(context, name, bytes, parts) }) else { return Ok(()) };
    let inner = node.get("network").unwrap_or(&node);
    let version = match inner.get("version").map(|it| &it.kind) {
        Some(NodeKind::Scalar(Value::Number(number))) => number.as_u64(),
        _ => None,
    };
    match version {
        Some(version @ (1 | 2)) => {
            // With netplan, version 2 is netplan's own language, of which cloud-init's schema knows a part.
            let netplan = version == 2 && context.exists("usr/sbin/netplan");
            let worst = if netplan { Severity::Warning } else { Severity::Error };
            by_schema(context, name, &node, &format!("schema-network-config-v{version}.json"), parts, worst)
        }
        _ => {
            let message = "network-config needs `version: 1` or `version: 2`".to_owned();
            let finding = parts.blame(context, &node, &[Step::Key("version".into())], message);
            context.error(finding);
            Ok(())
        }
    }
}

fn meta_data(context: &mut Context<'_>, bytes: &[u8], parts: &Parts) {
    if parts.is_empty() {
        return;
    }
    let Some(node) = read(context, "meta-data", bytes, parts) else { return };
    if !matches!(node.kind, NodeKind::Map(_)) {
        let finding = parts.blame(context, &node, &[], "meta-data must be a map (`key: value`)".into());
        context.error(finding);
        return;
    }
    for pair in node.pairs() {
        let path = [Step::Key(pair.key.clone())];
        let text = match &pair.value.kind {
            NodeKind::Scalar(Value::String(text)) => text.as_str(),
            _ if pair.key == "instance-id" => {
                let message = "meta-data `instance-id` must be a string; quotes make it one".to_owned();
                let finding = parts.blame(context, &node, &path, message);
                context.error(finding);
                continue;
            }
            _ => continue,
        };
        if text.contains("$(") || text.contains('`') || text.contains("${") {
            let message = format!("meta-data `{}`: `{text}` is taken as it is; no shell expands it", pair.key);
            let finding = parts.blame(context, &node, &path, message);
            context.error(finding);
        }
    }
}
