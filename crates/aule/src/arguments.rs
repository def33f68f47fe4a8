//! The arguments of every command.

use crate::output::Format;
use clap::{Args, Parser, Subcommand};
use std::{ffi::OsString, path::PathBuf};

/// Builds netboot artifacts for Raspberry Pi clusters from an upstream image and a recipe.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,

    /// The store [default: $AULE_STORE, else $XDG_DATA_HOME/aule/store]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) store: Option<PathBuf>,

    /// How the result is written to stdout
    #[arg(long, global = true, value_enum, default_value_t = Format::Text, value_name = "FORMAT")]
    pub(crate) format: Format,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build a recipe: every variant, or those that are named
    Build(BuildArguments),
    /// Say what a build would do: steps, downloads, packages, files, lock; nothing is written
    Plan(PlanArguments),
    /// Resolve what a recipe fetches and write its lock file
    Lock(LockArguments),
    /// Check a recipe against its image without building outputs
    Check(CheckArguments),
    /// Look at recipes
    #[command(subcommand)]
    Recipe(RecipeCommand),
    /// Serve builds for netboot as a site file says
    Serve {
        /// The site file
        site: PathBuf,
    },
    /// Check a site file, or have its server read it anew
    #[command(subcommand)]
    Site(SiteCommand),
    /// Show what the nodes of a server did, and where those are that did not come up
    Nodes {
        /// The site file, or the address of a server: `http://192.168.1.59`
        server: String,
        /// Show all that this node did
        node: Option<String>,
    },
    /// List the builds in the store
    List,
    /// Give a build one more name
    Tag {
        /// The build
        #[arg(value_name = "REF")]
        reference: String,
        /// The new name, such as `lab:stable`
        name: String,
    },
    /// Forget a name with all its generations
    Rm {
        /// The name, such as `lab:netboot`
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Make a name stand for its generation before the current one
    Rollback {
        /// The name
        name: String,
    },
    /// Show what a build is made of
    Inspect {
        /// The build
        #[arg(value_name = "REF")]
        reference: String,
    },
    /// List files of a build's root
    Ls {
        /// The build
        #[arg(value_name = "REF")]
        reference: String,
        /// A directory or file
        #[arg(default_value = "/")]
        path: OsString,
        /// Everything below, too
        #[arg(short, long)]
        recursive: bool,
    },
    /// Write a file of a build's root to stdout
    Cat {
        /// The build
        #[arg(value_name = "REF")]
        reference: String,
        /// The file
        path: OsString,
    },
    /// Write a build's bill of materials to stdout: its packages, their licences, and files of none of them
    Sbom {
        /// The build
        #[arg(value_name = "REF")]
        reference: String,
        /// Its form
        #[arg(long = "as", value_enum, default_value_t = BillForm::Spdx, value_name = "FORM")]
        form: BillForm,
    },
    /// Compare the roots of two builds
    Diff {
        /// The older build
        #[arg(value_name = "A")]
        old: String,
        /// The newer build
        #[arg(value_name = "B")]
        new: String,
        /// Do not show how the content of text files differs
        #[arg(long)]
        brief: bool,
    },
    /// Say where a path of a build comes from: layer, step, line of the recipe
    Why {
        /// The build
        #[arg(value_name = "REF")]
        reference: String,
        /// The path
        path: OsString,
    },
    /// Show the largest directories of a build, by layer
    Size {
        /// The build
        #[arg(value_name = "REF")]
        reference: String,
        /// How many directories are shown
        #[arg(long, default_value_t = 20)]
        top: usize,
        /// How deep directories are told apart
        #[arg(long, default_value_t = 3)]
        depth: usize,
    },
    /// Read every byte of a build again and check its digests
    Verify {
        /// The build
        #[arg(value_name = "REF")]
        reference: String,
        /// Also build it again from its own source, and compare
        #[arg(long)]
        rebuild: bool,
        /// Remove blobs whose bytes are not what their names say, so that the next build makes them anew
        #[arg(long)]
        drop_damaged: bool,
    },
    /// Write a build's files for other servers: boot.img, boot/, root.tar.zst, seed/
    Export {
        /// The build
        #[arg(value_name = "REF")]
        reference: String,
        /// Where to; made if it is not there
        #[arg(long, short, value_name = "DIR")]
        output: PathBuf,
    },
    /// Remove what no name leads to
    Gc {
        /// Only say what would go
        #[arg(long)]
        dry_run: bool,
    },
}

/// Arguments of `build`.
#[derive(Debug, Args)]
pub(crate) struct BuildArguments {
    /// The recipe
    pub(crate) recipe: PathBuf,
    /// Build this variant only; may be given several times
    #[arg(long = "variant", value_name = "V")]
    pub(crate) variants: Vec<String>,
    /// Take this local image in place of the recipe's
    #[arg(long, value_name = "FILE")]
    pub(crate) base: Option<PathBuf>,
    /// The archive of Debian packages for a base that names none [default: that of this machine's apt]
    #[arg(long, value_name = "URL", value_parser = mirror)]
    pub(crate) mirror: Option<String>,
    /// Fail if the lock would have to change
    #[arg(long, conflicts_with = "update")]
    pub(crate) locked: bool,
    /// Resolve again what is locked: everything, or the URL that is named; may be given several times
    #[arg(long, value_name = "NAME", num_args = 0..=1, require_equals = true)]
    pub(crate) update: Option<Vec<String>>,
    /// Emulate every program of the image while packages are installed, also those that this machine has itself: slower
    #[arg(long)]
    pub(crate) emulate: bool,
    /// How many threads work [default: one a processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) jobs: Option<u16>,
}

/// Arguments of `plan`.
#[derive(Debug, Args)]
pub(crate) struct PlanArguments {
    #[command(flatten)]
    pub(crate) build: BuildArguments,
    /// Compare with this build [default: the last build of the recipe, else its lock]
    #[arg(long, value_name = "REF")]
    pub(crate) against: Option<String>,
}

/// Arguments of `lock`.
#[derive(Debug, Args)]
pub(crate) struct LockArguments {
    /// The recipe
    pub(crate) recipe: PathBuf,
    /// Resolve again what is locked: everything, or the URL that is named; may be given several times
    #[arg(long, value_name = "NAME", num_args = 0..=1, require_equals = true)]
    pub(crate) update: Option<Vec<String>>,
    /// The archive of Debian packages for a base that names none [default: that of this machine's apt]
    #[arg(long, value_name = "URL", value_parser = mirror)]
    pub(crate) mirror: Option<String>,
}

/// Arguments of `check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArguments {
    /// The recipe
    pub(crate) recipe: PathBuf,
    /// Check this variant only; may be given several times
    #[arg(long = "variant", value_name = "V")]
    pub(crate) variants: Vec<String>,
    /// Take this local image in place of the recipe's
    #[arg(long, value_name = "FILE")]
    pub(crate) base: Option<PathBuf>,
    /// The archive of Debian packages for a base that names none [default: that of this machine's apt]
    #[arg(long, value_name = "URL", value_parser = mirror)]
    pub(crate) mirror: Option<String>,
}

/// What to do with sites.
#[derive(Debug, Subcommand)]
pub(crate) enum SiteCommand {
    /// Find the mistakes of a site file before a node does
    Check {
        /// The site file
        site: PathBuf,
    },
    /// Have the running server take the site file as it is now
    Reload {
        /// The site file
        site: PathBuf,
    },
}

/// What to do with recipes.
#[derive(Debug, Subcommand)]
pub(crate) enum RecipeCommand {
    /// Show the merged recipe
    Show {
        /// The recipe
        recipe: PathBuf,
        /// The variant; needed only where there are several
        #[arg(long, value_name = "V")]
        variant: Option<String>,
        /// Also show the file and line that each value comes from
        #[arg(long)]
        origin: bool,
    },
    /// Print the JSON Schema of recipes, for editors
    Schema,
}

/// The form of a bill of materials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum BillForm {
    /// SPDX 2.3, JSON
    Spdx,
    /// CycloneDX 1.6, JSON
    Cyclonedx,
}

/// The address of an archive. One with a password is refused: it would get into locks and artifacts.
fn mirror(text: &str) -> Result<String, aule_recipe::ValueError> {
    text.parse::<aule_recipe::Url>().map(|_| text.to_owned())
}
