//! `aule sbom`.

use super::open;
use crate::{arguments::BillForm as Form, failure::Failure, output};
use aule_build::{BillForm, read_bill};
use aule_store::Store;

/// Writes the bill of materials as it was made: it is JSON, whatever the format of other answers.
pub(super) fn run(store: &Store, reference: &str, form: Form) -> Result<(), Failure> {
    let build = open(store, reference)?;
    let form = match form {
        Form::Spdx => BillForm::Spdx,
        Form::Cyclonedx => BillForm::CycloneDx,
    };
    match read_bill(store, build.descriptor.digest, form)? {
        Some(bytes) => output::write(&bytes),
        None => Err(Failure::new(format!("`{reference}` carries no bill of materials"))
            .hint("builds of an older version have none; build the recipe again")),
    }
}
