//! Meta-data for cloud-init: a YAML map that must have an `instance-id`.

use std::path::Path;

use super::part::read_map;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::limits::MAX_DOCUMENT_BYTES;
use crate::show::Builder;
use crate::source::SourceMap;
use crate::yaml::{Key, emit_map};

const INSTANCE_ID: &str = "instance-id";

/// The document with an `instance-id`: its own, and then it stays byte for byte, or else `id` as its first key. `path` is
/// for messages. An empty document is an empty map.
///
/// # Errors
/// A document that is no YAML map.
pub fn with_instance_id(path: &Path, bytes: &[u8], id: &str) -> Result<Vec<u8>, Diagnostics> {
    let name = path.display();
    if bytes.len() > MAX_DOCUMENT_BYTES {
        let message = format!("`{name}` is too long: {} bytes, at most {MAX_DOCUMENT_BYTES}", bytes.len());
        return Err(Diagnostic::new(message).into());
    }
    let text = std::str::from_utf8(bytes).map_err(|_| Diagnostic::new(format!("`{name}` is not UTF-8 text")))?;
    let mut sources = SourceMap::default();
    let file = sources.add(path.to_owned(), String::new(), text.to_owned());
    let map = read_map(&sources, file, false, "meta-data")?;
    if map.contains_key(&Key::text(INSTANCE_ID)) {
        return Ok(bytes.to_vec());
    }
    let mut with_id = Builder::default();
    with_id.string(INSTANCE_ID, id);
    with_id.0.extend(map);
    Ok(emit_map(&with_id.0).into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_put_where_there_is_none() {
        for (given, wanted) in [
            ("", "instance-id: new\n"),
            ("local-hostname: x\n", "instance-id: new\nlocal-hostname: x\n"),
            ("{\"local-hostname\": \"x\"}", "instance-id: new\n\"local-hostname\": \"x\"\n"),
            ("---\na: 0644\n", "instance-id: new\na: 0644\n"),
            ("public-keys: {instance-id: x}\n", "instance-id: new\npublic-keys:\n  instance-id: x\n"),
            ("{local-hostname: a, instance-id: b}", "{local-hostname: a, instance-id: b}"),
            ("# mine\ninstance-id: b\n", "# mine\ninstance-id: b\n"),
        ] {
            let found = with_instance_id(Path::new("m"), given.as_bytes(), "new").unwrap();
            assert_eq!(String::from_utf8(found).unwrap(), wanted, "{given}");
        }
        for wrong in ["- a\n", "text\n", "a: [\n", "a: 1\na: 2\n"] {
            assert!(with_instance_id(Path::new("m"), wrong.as_bytes(), "new").is_err(), "{wrong}");
        }
        assert!(with_instance_id(Path::new("m"), b"\xff", "new").is_err());
    }
}
