//! Finds the mistakes of a site before a node does: images that are not there, templates that cannot be rendered, secrets
//! that cannot be read.

use crate::{
    http::{SECRET_MAX, read_signing_key},
    images::Images,
    nfs::HandleKey,
    nodes::{Boot, Identity, Known, Stage, is_named},
    published::Published,
    render::{self, Place},
    site::{Mac, Mistake, Node, Serial, Site, place},
    state::State,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{IpAddr, Ipv4Addr},
    path::Path,
    sync::Arc,
};

/// The largest template that is read.
const TEMPLATE_MAX: u64 = 1 << 20;

/// Everything that is wrong with a site; `path` is its file.
pub fn check(path: &Path, site: &Site, images: &Images) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    let mut builds: BTreeMap<&str, Arc<Published>> = BTreeMap::new();
    for (name, image) in &site.images {
        let opened = image.reference.value.parse().and_then(|it| Published::open(images.store(), &it));
        match opened {
            Ok(build) => {
                if build.boot.is_none() {
                    let message = format!("the image `{name}` has no `boot` artifact: no node can boot it");
                    let mistake = Mistake::new(path, place(&image.reference), message);
                    mistakes.push(mistake.hint("add `boot` to the recipe's outputs and build it again"));
                }
                builds.insert(name, Arc::new(build));
            }
            Err(error) => mistakes.push(Mistake::new(path, place(&image.reference), error.to_string())),
        }
    }
    let mut secrets = BTreeMap::new();
    for (name, secret) in &site.secrets {
        match fs::read_to_string(&secret.file) {
            Ok(text) if text.len() > SECRET_MAX => {
                let message =
                    format!("the secret `{name}` has more than {SECRET_MAX} bytes: {}", secret.file.display());
                mistakes.push(Mistake::new(path, (0, 0), message));
            }
            Ok(text) => {
                if text.trim().is_empty() {
                    let message = format!("the secret `{name}` is empty: {}", secret.file.display());
                    mistakes.push(Mistake::new(path, (0, 0), message));
                }
                secrets.insert(name.clone(), text);
            }
            // Never what it holds.
            Err(error) => {
                let message =
                    format!("the secret `{name}` cannot be read: {} ({})", secret.file.display(), error.kind());
                mistakes.push(Mistake::new(path, (0, 0), message));
            }
        }
    }
    if let Some(key) = &site.signing_key
        && let Err(error) = read_signing_key(&key.file)
    {
        mistakes.push(Mistake::new(path, (0, 0), format!("`signing_key`: {error}")));
    }
    if let Some(key) = &site.handle_key {
        let length = fs::read(&key.file).map(|it| it.len());
        match length {
            Ok(length) if length < 16 => {
                let mistake = Mistake::new(path, (0, 0), format!("`handle_key` has only {length} bytes"));
                mistakes.push(mistake.hint("head -c 32 /dev/urandom makes a good one"));
            }
            Ok(_) => {}
            Err(error) => {
                let shown = key.file.display();
                let message = format!("`handle_key` cannot be read: {shown} ({})", error.kind());
                mistakes.push(Mistake::new(path, (0, 0), message));
            }
        }
    }
    if let Err(error) = State::is_writable(&site.state) {
        let message = format!("`state` cannot be written: {} ({})", site.state.display(), error.kind());
        let mistake = Mistake::new(path, (0, 0), message);
        mistakes.push(mistake.hint("who checks must be who serves: sudo -u USER aule site check …"));
    }
    for rule in &site.nodes {
        let at = place(rule);
        mistakes.extend(same_name(&rule.value).map(|name| {
            let mistake = Mistake::new(path, at, format!("every node that this rule fits is called `{name}`"));
            mistake.hint("`{{ serial }}`, `{{ mac }}` or `{{ address }}` in it tells them apart").warning()
        }));
        let Some(build) = builds.get(rule.value.image.as_str()) else { continue };
        match sample(&rule.value, build) {
            Ok(node) => {
                for (what, error, is_warning) in unrendered(build, &node, &secrets) {
                    let message = format!("{what} of the image `{}`: {error}", node.boot.image);
                    let mistake = Mistake::new(path, at, message);
                    mistakes.push(if is_warning { mistake.warning() } else { mistake });
                }
            }
            Err(error) => mistakes.push(Mistake::new(path, at, format!("`name` cannot be rendered: {error}"))),
        }
    }
    mistakes
}

/// The name that a rule for several machines gives to each of them.
fn same_name(rule: &Node) -> Option<String> {
    if rule.matches.serial.is_some() || rule.matches.mac.is_some() {
        return None;
    }
    let name = |number: u8| {
        let (serial, mac) = (Some(Serial(number.into())), Some(Mac([2, 0, 0, 0, 0, number])));
        let identity = Identity { serial, mac, model: rule.matches.model.clone() };
        render::name(rule, &identity, Ipv4Addr::new(192, 0, 2, number).into()).ok()
    };
    name(1).filter(|one| name(2).as_ref() == Some(one))
}

/// A node that the rule could be for.
fn sample(rule: &Node, build: &Arc<Published>) -> Result<Known, render::RenderError> {
    let identity = Identity {
        serial: rule.matches.serial.or(Some(Serial(0x0000_0001))),
        mac: rule.matches.mac.or(Some(Mac([2, 0, 0, 0, 0, 1]))),
        model: rule.matches.model.clone().or_else(|| Some("RPi5".into())),
    };
    let address = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    let name = render::name(rule, &identity, address)?;
    Ok(Known {
        address,
        named: is_named(rule, &identity, &name),
        name,
        identity,
        vars: rule.vars.clone(),
        boot: Boot {
            number: 1,
            image: rule.image.clone(),
            build: Arc::clone(build),
            events: Vec::new(),
            stage: Stage::Dhcp,
            since: 0,
            began: true,
            released: BTreeSet::new(),
            missing: None,
        },
        last: 0,
        heard: None,
        read: None,
    })
}

/// What of a build cannot be rendered for a node, why, and whether it could work all the same: cloud-init's YAML is not ours.
fn unrendered(build: &Published, node: &Known, secrets: &BTreeMap<String, String>) -> Vec<(String, String, bool)> {
    let place = Place { address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)), http: 80, key: HandleKey::new(b"a check") };
    let mut failed = Vec::new();
    for file in build.boot.iter().flat_map(|boot| boot.sorted().into_iter().filter(|file| file.template)) {
        let Some(boot) = &build.boot else { continue };
        let rendered =
            boot.contents().read(&file.content, TEMPLATE_MAX).map_err(|error| error.to_string()).and_then(|bytes| {
                let text = String::from_utf8_lossy(&bytes);
                render::text(&text, node, &place, &BTreeMap::new()).map_err(|error| error.to_string())
            });
        failed.extend(rendered.err().map(|error| (file.path.to_string(), error, false)));
    }
    for (name, bytes) in &build.seed {
        let text = String::from_utf8_lossy(bytes);
        if text.trim_start().starts_with("## template: jinja") {
            continue;
        }
        let rendered = render::text(&text, node, &place, secrets).and_then(|text| match name.as_str() {
            "meta-data" => render::meta_data(&text, node),
            _ => Ok(text),
        });
        match rendered {
            Ok(text) => {
                let odd = render::is_yaml(&text).err();
                failed.extend(odd.map(|error| (name.clone(), format!("cloud-init may refuse it: {error}"), true)));
            }
            Err(error) => failed.push((name.clone(), error.to_string(), false)),
        }
    }
    failed
}
