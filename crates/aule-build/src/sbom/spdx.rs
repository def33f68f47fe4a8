//! SPDX 2.3 in JSON (specification, "Package", "File", "Relationship"; JSON schema of the same version).

use super::{
    inventory::{Inventory, Item},
    licence::identifier,
};
use aule_tree::Hasher;
use serde::Serialize;

/// What is not known, or not for us to say.
const NO_ASSERTION: &str = "NOASSERTION";
/// The tree as a whole.
const ROOT: &str = "SPDXRef-Root";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Document {
    spdx_version: &'static str,
    data_license: &'static str,
    #[serde(rename = "SPDXID")]
    id: &'static str,
    name: String,
    document_namespace: String,
    creation_info: CreationInfo,
    document_describes: Vec<&'static str>,
    packages: Vec<Package>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    files: Vec<File>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    has_extracted_licensing_infos: Vec<ExtractedLicence>,
    relationships: Vec<Relationship>,
}

#[derive(Serialize)]
struct CreationInfo {
    created: String,
    creators: Vec<&'static str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Package {
    #[serde(rename = "SPDXID")]
    id: String,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version_info: Option<String>,
    supplier: String,
    download_location: &'static str,
    files_analyzed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_info: Option<String>,
    license_concluded: &'static str,
    license_declared: String,
    copyright_text: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    summary: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    external_refs: Vec<ExternalReference>,
    primary_package_purpose: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExternalReference {
    reference_category: &'static str,
    reference_type: &'static str,
    reference_locator: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(rename = "SPDXID")]
    id: String,
    file_name: String,
    checksums: Vec<Checksum>,
    license_concluded: &'static str,
    license_info_in_files: Vec<&'static str>,
    copyright_text: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Checksum {
    algorithm: &'static str,
    checksum_value: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExtractedLicence {
    license_id: String,
    name: String,
    extracted_text: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Relationship {
    spdx_element_id: &'static str,
    relationship_type: &'static str,
    related_spdx_element: String,
}

/// The document of a tree.
pub(super) fn document(inventory: &Inventory) -> Document {
    let mut licences = Vec::new();
    let (system, version) = &inventory.system;
    let root = Package {
        id: ROOT.into(),
        name: inventory.name.clone(),
        version_info: None,
        supplier: NO_ASSERTION.into(),
        download_location: NO_ASSERTION,
        files_analyzed: false,
        source_info: Some(format!("root filesystem of {system} {version}").trim().to_owned()),
        license_concluded: NO_ASSERTION,
        license_declared: NO_ASSERTION.into(),
        copyright_text: NO_ASSERTION,
        summary: None,
        external_refs: Vec::new(),
        primary_package_purpose: "OPERATING-SYSTEM",
    };
    let mut packages = vec![root];
    let mut relationships = vec![relationship("SPDXRef-DOCUMENT", "DESCRIBES", ROOT.into())];
    for (number, item) in inventory.packages.iter().enumerate() {
        let package = package(inventory, number, item, &mut licences);
        relationships.push(relationship(ROOT, "CONTAINS", package.id.clone()));
        packages.push(package);
    }
    let mut files = Vec::new();
    for (number, file) in inventory.files.iter().enumerate() {
        let id = format!("SPDXRef-File-{number}");
        // Not of the root: a package whose files were not analysed has no elements (clause 7.8).
        relationships.push(relationship("SPDXRef-DOCUMENT", "DESCRIBES", id.clone()));
        files.push(File {
            id,
            file_name: format!("./{}", file.path),
            checksums: vec![
                Checksum { algorithm: "SHA1", checksum_value: file.sha1.clone() },
                Checksum { algorithm: "SHA256", checksum_value: file.sha256.hex().to_string() },
            ],
            license_concluded: NO_ASSERTION,
            license_info_in_files: vec![NO_ASSERTION],
            copyright_text: NO_ASSERTION,
        });
    }
    Document {
        spdx_version: "SPDX-2.3",
        data_license: "CC0-1.0",
        id: "SPDXRef-DOCUMENT",
        name: inventory.name.clone(),
        document_namespace: namespace(inventory),
        creation_info: CreationInfo { created: inventory.time.clone(), creators: vec!["Tool: aule"] },
        document_describes: vec![ROOT],
        packages,
        files,
        has_extracted_licensing_infos: licences,
        relationships,
    }
}

/// A name that is the same for the same document and for no other (clause 6.5); nothing can be fetched there.
fn namespace(inventory: &Inventory) -> String {
    let mut hasher = Hasher::new();
    hasher.field(b"spdx");
    [&inventory.tree.as_bytes()[..], inventory.name.as_bytes(), inventory.time.as_bytes()]
        .iter()
        .for_each(|it| hasher.field(it));
    format!("https://aule.invalid/spdx/{}", hasher.finish().hex())
}

fn relationship(from: &'static str, kind: &'static str, to: String) -> Relationship {
    Relationship { spdx_element_id: from, relationship_type: kind, related_spdx_element: to }
}

fn package(inventory: &Inventory, number: usize, item: &Item, licences: &mut Vec<ExtractedLicence>) -> Package {
    let references = item.licences.references(number);
    let declared = item.licences.expression(|name| references.get(name).cloned().unwrap_or_default());
    for (name, license_id) in references {
        let text = item.licences.texts.get(name).cloned();
        let extracted_text = text.unwrap_or_else(|| format!("See /usr/share/doc/{}/copyright.", item.name));
        licences.push(ExtractedLicence { license_id, name: name.to_owned(), extracted_text });
    }
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Package {
        id: format!("SPDXRef-Package-{number}-{}", identifier(&item.name)),
        name: item.name.clone(),
        version_info: text(&item.version),
        supplier: supplier(&item.maintainer).unwrap_or_else(|| NO_ASSERTION.into()),
        download_location: NO_ASSERTION,
        files_analyzed: false,
        source_info: Some(format!("built from source package {} {}", item.source.0, item.source.1)),
        license_concluded: NO_ASSERTION,
        license_declared: declared.unwrap_or_else(|| NO_ASSERTION.into()),
        copyright_text: NO_ASSERTION,
        summary: text(&item.summary),
        external_refs: vec![ExternalReference {
            reference_category: "PACKAGE-MANAGER",
            reference_type: "purl",
            reference_locator: item.purl(inventory),
        }],
        primary_package_purpose: "INSTALL",
    }
}

/// `Name <address>` as SPDX writes whoever supplies something.
fn supplier(maintainer: &str) -> Option<String> {
    let (name, address) = maintainer.split_once('<')?;
    let (name, address) = (name.trim().trim_matches('"'), address.trim_end_matches('>').trim());
    (!name.is_empty() && address.contains('@')).then(|| format!("Organization: {name} ({address})"))
}
