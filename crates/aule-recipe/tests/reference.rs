//! The examples of docs/recipe.md do what it says.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;

use std::path::Path;

use common::{errors, files, load_files};

fn blocks(language: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/recipe.md");
    let text = std::fs::read_to_string(path).unwrap();
    let start = format!("```{language}\n");
    text.split(&start).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

#[test]
fn example_recipes_load_and_merge_as_described() {
    let [ainur, quiet] = <[String; 2]>::try_from(blocks("yaml")).unwrap();
    let files = files(&[("recipes/ainur.yaml", &ainur), ("recipes/quiet.yaml", &quiet)]);
    let set = load_files(&files, "recipes/ainur.yaml").unwrap();
    assert_eq!(set.variants(), ["netboot", "sdcard"]);
    let shown = aule_recipe::show(&set.variant("netboot").unwrap(), true);
    for line in blocks("text")[0].lines() {
        assert!(shown.contains(line), "{line}\n{shown}");
    }
    let quiet = load_files(&files, "recipes/quiet.yaml").unwrap().variant("netboot").unwrap().recipe;
    assert_eq!(quiet.services.mask, ["snapd.service", "rpi-eeprom-update.service"]);
    let set: Vec<&str> = quiet.boot.cmdline.set.keys().map(String::as_str).collect();
    assert_eq!(set, ["console", "loglevel"]);
    let overlays: Vec<&str> = quiet.overlays.iter().map(|overlay| overlay.name()).collect();
    assert_eq!(overlays, ["../overlays/base", "../overlays/k3s", "../overlays/quiet"]);
}

#[test]
fn the_error_example_is_what_is_printed() {
    let recipe = "name: ainur\nbase: { image: pi.img.xz }\noverlay: [../overlays/base]\n\
                  files: { /usr/local/bin/k3s: { source: k3s, mode: 0755 } }\n";
    let printed = errors(&[("recipes/ainur.yaml", recipe)]);
    assert_eq!(printed, blocks("console")[0].trim_end());
}
