//! From a path to a recipe: reads the file and what it extends, merges, and gives each variant.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use indexmap::IndexMap;

use crate::convert::{Context, Fragment, fragment, whole};
use crate::diagnostic::{Diagnostic, Diagnostics, Gathered};
use crate::limits::{MAX_EXTENDS, MAX_VARIANTS};
use crate::merge::{drop_repeats, merge};
use crate::origins::Origins;
use crate::path::{join_name, normalize};
use crate::recipe::Recipe;
use crate::source::{FileId, SourceMap, Sources, Span};
use crate::suggest::nearest;
use crate::value::Url;
use crate::yaml::{Entry, Key, KeyRule, Map, Node, Value, parse};

/// The variant of a recipe that names none.
const DEFAULT: &str = "default";

/// A merged recipe with where each of its values came from.
#[derive(Debug, Clone)]
pub struct Merged {
    /// The recipe.
    pub recipe: Recipe,
    /// The name of the variant; `default` where the recipe has none.
    pub variant: String,
    /// Places of its values.
    pub origins: Origins,
}

/// A recipe that was read with all that it extends, before one of its variants is chosen.
#[derive(Debug, Clone)]
pub struct RecipeSet {
    name: String,
    common: Node,
    variants: IndexMap<String, Entry>,
    sources: Arc<SourceMap>,
    read: Vec<PathBuf>,
}

impl RecipeSet {
    /// The recipe's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The names of the variants in the order in which they were written; `default` where there are none.
    pub fn variants(&self) -> Vec<&str> {
        if self.variants.is_empty() { vec![DEFAULT] } else { self.variants.keys().map(String::as_str).collect() }
    }

    /// The recipe files that were read: first the one that was asked for, then what it extends.
    pub fn sources_read(&self) -> &[PathBuf] {
        &self.read
    }

    /// One variant, merged over what is common to all.
    ///
    /// # Errors
    /// No such variant, or what only the merged recipe gets wrong: a missing base image, contradictions.
    pub fn variant(&self, name: &str) -> Result<Merged, Diagnostics> {
        let mut node = match self.variants.get(name) {
            Some(entry) => {
                // Mistakes in the whole recipe are shown at its beginning, not at the variant's.
                let span = self.common.span;
                let mut node = merge(self.common.clone(), entry.value.clone());
                node.span = span;
                node
            }
            None if self.variants.is_empty() && name == DEFAULT => self.common.clone(),
            None => return Err(self.unknown_variant(name).into()),
        };
        drop_repeats(&mut node);
        let mut cx = Context::new(&self.sources);
        let recipe = whole(&mut cx, &node);
        cx.gathered.check()?;
        let Some(recipe) = recipe else {
            return Err(Diagnostic::new(format!("the variant `{name}` is not complete")).into());
        };
        let origins = Origins::new(Arc::clone(&self.sources), &node);
        Ok(Merged { recipe, variant: name.to_owned(), origins })
    }

    fn unknown_variant(&self, name: &str) -> Diagnostic {
        let known = self.variants();
        let message = format!("the recipe `{}` has no variant `{name}`", self.name);
        let diagnostic = Diagnostic::new(message).help(format!("its variants: {}", known.join(", ")));
        match nearest(name, known) {
            Some(name) => diagnostic.help(format!("did you mean `{name}`?")),
            None => diagnostic,
        }
    }
}

/// Reads a recipe, follows `extends`, merges and checks every variant.
///
/// # Errors
/// Every mistake that was found: in any of the files, or in any variant.
pub fn load(sources: &dyn Sources, path: &Path) -> Result<RecipeSet, Diagnostics> {
    let mut map = SourceMap::default();
    let fragments = read_chain(sources, path, &mut map)?;
    let mut cx = Context::new(&map);
    for node in &fragments {
        fragment(&mut cx, node, Fragment::Recipe);
    }
    cx.gathered.check()?;
    let read = map.files().iter().map(|file| file.path.clone()).collect();
    let main_span = fragments.first().map(|node| node.span);
    let merged = fragments.into_iter().rev().reduce(merge);
    let (Some(mut common), Some(main_span)) = (merged, main_span) else {
        return Err(Diagnostic::new(format!("`{}` holds nothing", path.display())).into());
    };
    common.span = main_span;
    let variants = take_variants(&map, &mut common)?;
    let name = common.get("name").and_then(Node::as_text).unwrap_or_default().to_owned();
    let set = RecipeSet { name, common, variants, sources: Arc::new(map), read };
    let mut gathered = Gathered::default();
    for name in set.variants() {
        if let Err(diagnostics) = set.variant(name) {
            gathered.extend(diagnostics);
        }
    }
    gathered.check()?;
    Ok(set)
}

fn take_variants(map: &SourceMap, common: &mut Node) -> Result<IndexMap<String, Entry>, Diagnostics> {
    let Value::Map(fields) = &mut common.value else {
        return Ok(IndexMap::new());
    };
    let Some(entry) = fields.shift_remove(&Key::text("variants")) else {
        return Ok(IndexMap::new());
    };
    let Value::Map(variants) = entry.value.value else {
        return Ok(IndexMap::new());
    };
    if variants.len() > MAX_VARIANTS {
        let message = format!("{} variants, at most {MAX_VARIANTS} are possible", variants.len());
        return Err(map.diagnostic(entry.key.span, message).into());
    }
    Ok(variants.into_iter().map(|(key, entry)| (key.text, entry)).collect())
}

/// One more file of the chain: how it is opened, how it is called relative to the main recipe, who asked for it.
struct Next {
    path: PathBuf,
    directory_name: String,
    asked_at: Option<Span>,
}

/// Reads the recipe and what it extends, the recipe first. `extends` is taken out of each.
fn read_chain(sources: &dyn Sources, path: &Path, map: &mut SourceMap) -> Result<Vec<Node>, Diagnostics> {
    let mut fragments = Vec::new();
    let mut seen: Vec<PathBuf> = Vec::new();
    let mut next = Some(Next { path: path.to_owned(), directory_name: String::new(), asked_at: None });
    while let Some(Next { path, directory_name, asked_at }) = next.take() {
        let normal = normalize(&path);
        if seen.contains(&normal) || seen.len() >= MAX_EXTENDS {
            return Err(endless(map, &seen, &normal, asked_at).into());
        }
        seen.push(normal);
        let file = read_file(sources, map, path.clone(), directory_name.clone(), asked_at)?;
        let Some(mut node) = parse(map, file, KeyRule::Text)? else {
            let empty = Span { file, line: 1, column: 1, length: 1 };
            return Err(map
                .diagnostic(empty, format!("`{}` is empty", path.display()))
                .label("expected a recipe")
                .into());
        };
        let Value::Map(fields) = &mut node.value else {
            let message = format!("a recipe must be a map (`key: value`), not {}", node.describe());
            return Err(map.diagnostic(node.span, message).into());
        };
        next = extends(map, fields, &path, &directory_name)?;
        fragments.push(node);
    }
    Ok(fragments)
}

fn read_file(
    sources: &dyn Sources,
    map: &mut SourceMap,
    path: PathBuf,
    directory_name: String,
    asked_at: Option<Span>,
) -> Result<FileId, Diagnostics> {
    let bytes = sources.read(&path).map_err(|error| {
        let message = format!("cannot read the recipe `{}`: {error}", path.display());
        match asked_at {
            Some(span) => map.diagnostic(span, message).label("it is extended here"),
            None => Diagnostic::new(message),
        }
    })?;
    match String::from_utf8(bytes) {
        Ok(text) => Ok(map.add(path, directory_name, text)),
        Err(error) => {
            let valid = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
            let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
            Err(Diagnostic::new(format!("`{}` is not UTF-8 text, see line {line}", path.display())).into())
        }
    }
}

/// Takes `extends` out of a recipe and says which file it means.
fn extends(map: &SourceMap, fields: &mut Map, path: &Path, directory_name: &str) -> Result<Option<Next>, Diagnostics> {
    let Some(entry) = fields.shift_remove(&Key::text("extends")) else {
        return Ok(None);
    };
    let mut cx = Context::new(map);
    let written = cx.string(&entry.value, "`extends`").map(str::to_owned);
    cx.gathered.check()?;
    let span = entry.value.span;
    let written = written.unwrap_or_default();
    if written.is_empty() || Url::looks_like(&written) || Path::new(&written).is_absolute() {
        let message = format!("`{written}` cannot be extended");
        return Err(map.diagnostic(span, message).label("expected the path of a recipe, relative to this file").into());
    }
    let directory = path.parent().unwrap_or(Path::new(""));
    let parent_name = written.rsplit_once('/').map_or("", |(parent, _)| parent);
    Ok(Some(Next {
        path: normalize(&directory.join(&written)),
        directory_name: join_name(directory_name, parent_name),
        asked_at: Some(span),
    }))
}

fn endless(map: &SourceMap, seen: &[PathBuf], again: &Path, asked_at: Option<Span>) -> Diagnostic {
    let message = if seen.iter().any(|path| path == again) {
        let mut circle: Vec<String> =
            seen.iter().skip_while(|path| *path != again).map(|path| path.display().to_string()).collect();
        circle.push(again.display().to_string());
        format!("recipes extend each other in a circle: {}", circle.join(" -> "))
    } else {
        format!("more than {MAX_EXTENDS} recipes extend each other")
    };
    match asked_at {
        Some(span) => map.diagnostic(span, message),
        None => Diagnostic::new(message),
    }
}
