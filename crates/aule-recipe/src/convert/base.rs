//! `base:`: an upstream image with what verifies it, or packages.

use super::recipe::{input, missing, suite};
use super::{Context, keys, names};
use crate::path::LocalPath;
use crate::recipe::{Base, BaseImage, BasePackages, Input};
use crate::value::{Sha256, Url};
use crate::yaml::Node;

#[derive(Default)]
pub(super) struct BaseFields {
    image: Option<Input>,
    sha256: Option<Sha256>,
    checksums: Option<Input>,
    signature: Option<Input>,
    keyring: Option<LocalPath>,
    packages: Option<BasePackageFields>,
}

#[derive(Default)]
struct BasePackageFields {
    uri: Option<Url>,
    suite: Option<String>,
    components: Option<Vec<String>>,
    key: Option<LocalPath>,
    architecture: Option<String>,
    include: Vec<String>,
}

pub(super) fn base(cx: &mut Context<'_>, node: &Node) -> BaseFields {
    let mut base = BaseFields::default();
    if cx.fields(node, "`base`", keys::BASE).is_none() {
        return base;
    }
    base.image = node.get("image").and_then(|node| input(cx, node, "the base image"));
    base.sha256 = node.get("sha256").and_then(|node| {
        let text = cx.letters(node, "`base.sha256`");
        cx.parsed(node, "the digest", text, str::parse)
    });
    base.checksums = node.get("checksums").and_then(|node| input(cx, node, "the checksums file"));
    base.signature = node.get("signature").and_then(|node| input(cx, node, "the signature"));
    base.keyring = node.get("keyring").and_then(|node| cx.local(node, "the keyring", true));
    base.packages = node.get("packages").map(|node| base_packages(cx, node));
    base
}

/// The architecture of a base that names none: the Pi's.
const ARCHITECTURE: &str = "arm64";

/// Only what one fragment says; whether all is there is seen when they are merged.
fn base_packages(cx: &mut Context<'_>, node: &Node) -> BasePackageFields {
    let mut fields = BasePackageFields::default();
    if cx.fields(node, "`base.packages`", keys::BASE_PACKAGES).is_none() {
        return fields;
    }
    fields.uri = node.get("uri").and_then(|node| {
        let text = cx.string(node, "`base.packages.uri`");
        cx.parsed(node, "the address of the archive", text, str::parse)
    });
    fields.suite = node.get("suite").and_then(|node| suite(cx, node));
    fields.components = node.get("components").map(|node| cx.strings(node, "`components`", names::suite));
    fields.key = node.get("key").and_then(|node| cx.local(node, "the key of the archive", true));
    fields.architecture = node.get("architecture").and_then(|node| {
        let text = cx.string(node, "`architecture`")?;
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            return Some(text.to_owned());
        }
        cx.report(node.span, format!("`{text}` is no architecture"), "expected Debian's name of one, such as arm64");
        None
    });
    let include = node.get("include").map(|node| cx.strings(node, "`base.packages.include`", names::package));
    fields.include = include.unwrap_or_default();
    fields
}

/// A base of packages, with all that it must have.
fn whole_base_packages(cx: &mut Context<'_>, node: &Node, base: BaseFields) -> Option<Base> {
    let BaseFields { image, packages, .. } = base;
    let span = node.get("packages").map_or(node.span, |node| node.span);
    if image.is_some() {
        let other = cx.sources.snippet(node.get("image").map_or(node.span, |node| node.span));
        let diagnostic = cx
            .sources
            .diagnostic(span, "the base is both an image and made of packages")
            .label("expected one of the two")
            .related(other, "the other one")
            .help("where one of them is inherited, `base: !replace` begins a new base");
        cx.push(diagnostic);
        return None;
    }
    let BasePackageFields { uri, suite, components, key, architecture, include } = packages.unwrap_or_default();
    for (name, is_there) in [("suite", suite.is_some()), ("key", key.is_some())] {
        if !is_there && node.get("packages").is_some_and(|node| node.get(name).is_none()) {
            let message = format!("the base of packages has no `{name}`");
            cx.report(span, message, "expected `suite`, such as trixie, and `key`, the keys that may sign it");
        }
    }
    let components = components.unwrap_or_else(|| vec!["main".into()]);
    let architecture = architecture.unwrap_or_else(|| ARCHITECTURE.into());
    let packages = BasePackages { uri, suite: suite?, components, key: key?, architecture, include };
    Some(Base::Packages { packages })
}

pub(super) fn whole_base(cx: &mut Context<'_>, node: &Node, base: BaseFields) -> Option<Base> {
    let base_node = node.get("base");
    if let Some(base_node) = base_node.filter(|_| base.packages.is_some()) {
        return whole_base_packages(cx, base_node, base);
    }
    let span = base_node.map_or(node.span, |node| node.span);
    let at = |key: &str| base_node.and_then(|node| node.get(key)).map_or(span, |node| node.span);
    let Some(image) = base.image else {
        return missing(
            cx,
            span,
            "base.image",
            "the recipe has no base image",
            "`base: {image: …}`, or `base: {packages: …}`,",
        );
    };
    if base.sha256.is_some() && base.checksums.is_some() {
        let other = cx.sources.snippet(at("checksums"));
        let diagnostic = cx
            .sources
            .diagnostic(at("sha256"), "the base image has both a digest and a checksums file")
            .label("expected one of the two")
            .related(other, "the other one")
            .help("where one of them is inherited, `base: !replace` begins a new base");
        cx.push(diagnostic);
    }
    if base.signature.is_some() && (base.checksums.is_none() || base.keyring.is_none()) {
        cx.report(at("signature"), "a signature needs what it signs", "expected `checksums` and `keyring` beside it");
    }
    if base.keyring.is_some() && base.checksums.is_none() {
        cx.report(at("keyring"), "a keyring needs what was signed", "expected `checksums` beside it");
    }
    if matches!(image, Input::Url(_)) && base.sha256.is_none() && base.checksums.is_none() {
        let diagnostic = cx
            .sources
            .diagnostic(at("image"), "nothing verifies the fetched base image")
            .label("expected `sha256`, or `checksums` with `signature` and `keyring`, beside it");
        cx.push(diagnostic);
    }
    let BaseFields { sha256, checksums, signature, keyring, .. } = base;
    Some(Base::Image(BaseImage { image, sha256, checksums, signature, keyring }))
}
