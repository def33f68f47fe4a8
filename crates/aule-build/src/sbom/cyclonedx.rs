//! CycloneDX 1.6 in JSON (specification, "Components"; JSON schema of the same version).

use super::inventory::{Inventory, Item};
use serde::Serialize;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Document {
    bom_format: &'static str,
    spec_version: &'static str,
    version: u32,
    metadata: Metadata,
    components: Vec<Component>,
}

#[derive(Serialize)]
struct Metadata {
    timestamp: String,
    component: Component,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Component {
    #[serde(rename = "type")]
    kind: &'static str,
    bom_ref: String,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hashes: Vec<Hash>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    licenses: Vec<Licence>,
    #[serde(skip_serializing_if = "Option::is_none")]
    purl: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    properties: Vec<Property>,
}

#[derive(Serialize)]
struct Hash {
    alg: &'static str,
    content: String,
}

#[derive(Serialize)]
struct Licence {
    expression: String,
}

#[derive(Serialize)]
struct Property {
    name: &'static str,
    value: String,
}

/// The document of a tree.
pub(super) fn document(inventory: &Inventory) -> Document {
    let (system, version) = &inventory.system;
    let root = Component {
        kind: "operating-system",
        bom_ref: format!("tree:{}", inventory.tree),
        name: inventory.name.clone(),
        version: None,
        description: Some(format!("root filesystem of {system} {version}").trim().to_owned()),
        hashes: Vec::new(),
        licenses: Vec::new(),
        purl: None,
        properties: Vec::new(),
    };
    let packages = inventory.packages.iter().enumerate().map(|(number, item)| component(inventory, number, item));
    let files = inventory.files.iter().map(|file| Component {
        kind: "file",
        bom_ref: format!("file:/{}", file.path),
        name: format!("/{}", file.path),
        version: None,
        description: None,
        hashes: vec![Hash { alg: "SHA-256", content: file.sha256.hex().to_string() }],
        licenses: Vec::new(),
        purl: None,
        properties: Vec::new(),
    });
    Document {
        bom_format: "CycloneDX",
        spec_version: "1.6",
        version: 1,
        metadata: Metadata { timestamp: inventory.time.clone(), component: root },
        components: packages.chain(files).collect(),
    }
}

fn component(inventory: &Inventory, number: usize, item: &Item) -> Component {
    let purl = item.purl(inventory);
    let references = item.licences.references(number);
    let expression = item.licences.expression(|name| references.get(name).cloned().unwrap_or_default());
    let (source, version) = &item.source;
    Component {
        kind: "library",
        bom_ref: purl.clone(),
        name: item.name.clone(),
        version: Some(item.version.clone()),
        description: (!item.summary.is_empty()).then(|| item.summary.clone()),
        hashes: Vec::new(),
        licenses: expression.map(|expression| Licence { expression }).into_iter().collect(),
        purl: Some(purl),
        properties: vec![
            Property { name: "aule:architecture", value: item.architecture.clone() },
            Property { name: "aule:source", value: format!("{source} {version}") },
        ],
    }
}

impl Item {
    /// The package URL (purl specification, type `deb`), in its canonical form, where `:` stays as it is.
    pub(super) fn purl(&self, inventory: &Inventory) -> String {
        let encoded = |text: &str| {
            let mut encoded = String::new();
            for byte in text.bytes() {
                match byte {
                    b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'~' | b':' => {
                        encoded.push(byte.into())
                    }
                    byte => encoded.push_str(&format!("%{byte:02X}")),
                }
            }
            encoded
        };
        let (system, version) = &inventory.system;
        let system = if system.is_empty() { "debian" } else { system };
        let mut purl = format!(
            "pkg:deb/{}/{}@{}?arch={}",
            encoded(&system.to_ascii_lowercase()),
            encoded(&self.name.to_ascii_lowercase()),
            encoded(&self.version),
            encoded(&self.architecture)
        );
        if !version.is_empty() {
            purl.push_str(&format!("&distro={}-{}", encoded(system), encoded(version)));
        }
        purl
    }
}
