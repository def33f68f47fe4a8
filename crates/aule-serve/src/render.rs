//! What differs from node to node, made when it is asked for: command lines, seeds, names.
//!
//! Templates are Jinja. A name that is not defined is an error, never an empty text.

use crate::{
    nfs::HandleKey,
    nodes::{Identity, Known},
    site::{Mac, Node},
};
use aule_tree::Hasher;
use minijinja::{
    Environment, UndefinedBehavior,
    syntax::SyntaxConfig,
    value::{Serde, Value},
};
use std::{collections::BTreeMap, net::IpAddr};

/// The largest result of a template.
const RENDERED_MAX: usize = 1 << 20;

/// Where a node finds this server.
#[derive(Debug, Clone)]
pub struct Place {
    /// The address that it is told.
    pub address: IpAddr,
    /// The port of HTTP.
    pub http: u16,
    /// What signs the addresses of seeds.
    pub key: HandleKey,
}

impl Place {
    /// Where the node's seed is. The address names the build and the machine, and is signed: a server that did not see this
    /// boot begin still gives the seed that belongs to the root, to the node that it belongs to.
    pub fn seed_url(&self, node: &Known) -> String {
        format!("{}/seed/{}/{}/", origin(self), node.name, SeedAddress::of(node).write(&self.key, &node.name))
    }
}

/// What the address of a seed says beside the node's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeedAddress {
    /// The first half of the digest of the build.
    pub build: [u8; 16],
    /// Who the node is.
    pub identity: Identity,
}

impl SeedAddress {
    fn of(node: &Known) -> Self {
        let identity = Identity { model: None, ..node.identity.clone() };
        SeedAddress { build: crate::nfs::prefix(node.boot.build.digest), identity }
    }

    fn code(&self, key: &HandleKey, name: &str) -> String {
        let Identity { serial, mac, .. } = &self.identity;
        let said = format!("{name} {} {serial:?} {mac:?}", hex::encode(self.build));
        hex::encode(key.derive("aule seed address", said.as_bytes())).chars().take(16).collect()
    }

    /// `<build>-<serial>-<mac>-<code>`, in hexadecimal; empty where something is not known.
    fn write(&self, key: &HandleKey, name: &str) -> String {
        let serial = self.identity.serial.map(|it| it.to_string()).unwrap_or_default();
        let mac = self.identity.mac.map(|it| hex::encode(it.0)).unwrap_or_default();
        format!("{}-{serial}-{mac}-{}", hex::encode(self.build), self.code(key, name))
    }

    /// Reads one that was written for a node of this name with this key.
    pub fn read(text: &str, key: &HandleKey, name: &str) -> Option<SeedAddress> {
        let parts: Vec<&str> = text.split('-').collect();
        let [build, serial, mac, _] = parts.as_slice() else { return None };
        let build: [u8; 16] = hex::decode(build).ok()?.try_into().ok()?;
        let serial = if serial.is_empty() { None } else { Some(serial.parse().ok()?) };
        let mac = if mac.is_empty() { None } else { Some(Mac(hex::decode(mac).ok()?.try_into().ok()?)) };
        let address = SeedAddress { build, identity: Identity { serial, mac, model: None } };
        (address.write(key, name) == text).then_some(address)
    }
}

/// A template that cannot be rendered.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct RenderError(String);

fn environment() -> Result<Environment<'static>, minijinja::Error> {
    let mut environment = Environment::new();
    // `{#` opens a comment in Jinja, and `${#list[@]}` is how a shell counts: a seed full of scripts must not lose them.
    let syntax = SyntaxConfig::builder().comment_delimiters("{##", "##}").keep_trailing_newline(true).build()?;
    environment.set_syntax(syntax);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_recursion_limit(50);
    Ok(environment)
}

fn render(text: &str, values: Value) -> Result<String, RenderError> {
    let rendered = environment().and_then(|it| it.render_str(text, values)).map_err(|error| {
        let line = error.line().map(|line| format!(" (line {line})")).unwrap_or_default();
        RenderError(format!("{error}{line}"))
    })?;
    if rendered.len() > RENDERED_MAX {
        return Err(RenderError(format!("the result has more than {RENDERED_MAX} bytes")));
    }
    Ok(rendered)
}

/// The name of a node.
///
/// # Errors
/// When the rule's template cannot be rendered, or gives what no host can be called (RFC 1123, 2.1).
pub fn name(rule: &Node, identity: &Identity, address: IpAddr) -> Result<String, RenderError> {
    let serial = identity.serial.map(|it| it.to_string());
    let mac = identity.mac.map(|it| it.to_string().replace(':', "-"));
    let mut values: BTreeMap<&str, Value> = BTreeMap::new();
    values.extend(serial.map(|it| ("serial", it.into())));
    values.extend(mac.map(|it| ("mac", it.into())));
    values.extend(identity.model.clone().map(|it| ("model", it.into())));
    values.insert("address", address.to_string().replace(['.', ':'], "-").into());
    values.insert("vars", Value::from(Serde(&rule.vars)));
    let name = render(&rule.name, Value::from(Serde(&values)))?;
    let right = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    if name.len() > 253 || !name.split('.').all(right) {
        return Err(RenderError(format!("`{name}` is no host name")));
    }
    Ok(name)
}

/// Renders a boot file or a document of a seed for a node. `secrets` are those that it may have now.
///
/// # Errors
/// When the template is wrong, or asks for what is not defined.
pub fn text(
    template: &str,
    node: &Known,
    place: &Place,
    secrets: &BTreeMap<String, String>,
) -> Result<String, RenderError> {
    let mut values: BTreeMap<&str, Value> = BTreeMap::from([
        ("server", place.address.to_string().into()),
        ("export", export(node).into()),
        ("seed", place.seed_url(node).into()),
        ("name", node.name.clone().into()),
        ("image", node.boot.image.clone().into()),
        ("digest", node.boot.build.digest.to_string().into()),
        ("address", node.address.to_string().into()),
        ("vars", Value::from(Serde(&node.vars))),
        ("secrets", Value::from(Serde(secrets))),
    ]);
    // What is not known is not defined, and so an error.
    let Identity { serial, mac, model } = &node.identity;
    values.extend(serial.map(|it| ("serial", it.to_string().into())));
    values.extend(mac.map(|it| ("mac", it.to_string().into())));
    values.extend(model.clone().map(|it| ("model", it.into())));
    render(template, Value::from(Serde(&values)))
}

/// The path by which a node mounts its root: the first half of the digest, as that is what handles hold, too. (U-Boot takes
/// command lines of 511 bytes at most, and the whole digest did not leave room for longer names.)
fn export(node: &Known) -> String {
    format!("/{}", hex::encode(crate::nfs::prefix(node.boot.build.digest)))
}

/// Whether a template uses a variable of this name.
///
/// # Errors
/// When the template is wrong.
pub fn names(template: &str, variable: &str) -> Result<bool, RenderError> {
    let wrong = |error: minijinja::Error| RenderError(error.to_string());
    let environment = environment().map_err(wrong)?;
    let template = environment.template_from_str(template).map_err(wrong)?;
    Ok(template.undeclared_variables(false).contains(variable))
}

/// The server's address as the beginning of URLs.
pub fn origin(place: &Place) -> String {
    let host = match place.address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    };
    let port = if place.http == 80 { String::new() } else { format!(":{}", place.http) };
    format!("http://{host}{port}")
}

/// The machine id of a node: the same at each boot and on each server, another for each node. Not a secret.
/// (machine-id(5): 32 lower-case hex digits.)
pub fn machine_id(node: &Known) -> String {
    let mut hasher = Hasher::new();
    hasher.field(b"aule machine id");
    identify(&mut hasher, node);
    hasher.finish().hex().chars().take(32).collect()
}

/// The instance id of a node with its seed: while neither changes, cloud-init has nothing to do again.
pub fn instance_id(node: &Known) -> String {
    let mut hasher = Hasher::new();
    hasher.field(b"aule instance id");
    identify(&mut hasher, node);
    hasher.field(node.boot.build.seed_digest.map(|it| *it.as_bytes()).unwrap_or_default().as_slice());
    hasher.field(serde_json::to_string(&node.vars).unwrap_or_default().as_bytes());
    let digest: String = hasher.finish().hex().chars().take(16).collect();
    format!("{}-{digest}", node.name)
}

fn identify(hasher: &mut Hasher, node: &Known) {
    hasher.field(node.name.as_bytes());
    // What else is known of it may differ from boot to boot, as it comes from DHCP here and from TFTP there.
    if node.named {
        return;
    }
    hasher.field(node.identity.serial.map(|it| it.to_string()).unwrap_or_default().as_bytes());
    let mac = if node.identity.serial.is_some() { None } else { node.identity.mac };
    hasher.field(mac.map(|it| it.to_string()).unwrap_or_default().as_bytes());
}

/// Looks whether a document that calls itself `#cloud-config` is YAML: of one that is not, cloud-init takes nothing.
///
/// # Errors
/// When it is not.
pub fn is_yaml(text: &str) -> Result<(), RenderError> {
    let is_config = text.lines().next().is_some_and(|line| line.trim_end() == "#cloud-config");
    if !is_config {
        return Ok(());
    }
    let read: Result<serde::de::IgnoredAny, _> = serde_saphyr::from_str_with_options(text, as_python());
    read.map(drop).map_err(|error| RenderError(error.without_snippet().to_string()))
}

/// YAML as PyYAML takes it, as far as that can be said.
fn as_python() -> serde_saphyr::Options {
    serde_saphyr::options! {
        duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::LastWins,
        ignore_binary_tag_for_string: true,
    }
}

/// Meta-data with the node's instance id and host name, which replace what the seed says.
///
/// # Errors
/// When the document is no YAML map.
pub fn meta_data(text: &str, node: &Known) -> Result<String, RenderError> {
    let mut map: BTreeMap<String, serde_json::Value> = match text.trim() {
        "" => BTreeMap::new(),
        text => serde_saphyr::from_str_with_options(text, as_python())
            .map_err(|error| RenderError(error.without_snippet().to_string()))?,
    };
    map.insert("instance-id".into(), instance_id(node).into());
    map.insert("local-hostname".into(), node.name.clone().into());
    // JSON is YAML.
    serde_json::to_string(&map).map(|text| text + "\n").map_err(|error| RenderError(error.to_string()))
}
