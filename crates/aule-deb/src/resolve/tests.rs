//! Small worlds, and what is done in them. `ci/compare-apt` asks apt about large ones.

use super::*;
use crate::index::Packages;

/// A world: what is installed, and what the sources offer, as `name version; Field: value; …` a line.
struct World {
    installed: Packages,
    offered: Packages,
    backports: Packages,
}

fn packages(lines: &str, more: &str) -> Packages {
    let paragraph = |line: &str| {
        let mut parts = line.split(';').map(str::trim);
        let (name, version) = parts.next().unwrap().split_once(' ').unwrap();
        let fields: String = parts.map(|field| format!("{field}\n")).collect();
        format!("Package: {name}\nVersion: {version}\nArchitecture: arm64\n{fields}{more}\n")
    };
    Packages::parse(lines.lines().map(str::trim).filter(|it| !it.is_empty()).map(paragraph).collect()).unwrap()
}

impl World {
    fn new(installed: &str, offered: &str) -> World {
        let installed = packages(installed, "Status: install ok installed\n");
        World { installed, offered: packages(offered, ""), backports: packages("", "") }
    }

    fn resolve(&self, request: &Request) -> Result<Solution<'_>, ResolveError> {
        let sources = [
            Source { packages: &self.offered, priority: 500, is_pinned: false },
            Source { packages: &self.backports, priority: 100, is_pinned: false },
        ];
        Universe::new("arm64", &self.installed, &sources, &request.install)?.resolve(request)
    }

    /// What is done, as `+name version` and `-name`.
    fn done(&self, install: &[&str], remove: &[&str]) -> Result<String, String> {
        let names = |names: &[&str]| names.iter().map(|it| (*it).to_owned()).collect();
        let request = Request { install: names(install), remove: names(remove) };
        let solution = self.resolve(&request).map_err(|error| error.to_string())?;
        let installed = solution.install.iter().map(|(_, it)| format!("+{} {}", it.name, it.version));
        let removed = solution.remove.iter().map(|it| format!("-{}", it.name));
        Ok(installed.chain(removed).collect::<Vec<_>>().join(", "))
    }
}

#[test]
fn what_is_needed_comes_and_what_is_there_stays() {
    let world = World::new(
        "libc6 2.36\nbase 1; Essential: yes; Depends: libc6",
        "libc6 2.37\nbase 2; Essential: yes\na 1; Depends: b (>= 2) | c, libc6 (>= 2.30)\nb 1\nc 1; Pre-Depends: d\nd 1; Recommends: e\ne 1",
    );
    // No `b` is late enough; `libc6` and `base` could be newer and need not be.
    assert_eq!(world.done(&["a"], &[]).unwrap(), "+a 1, +c 1, +d 1");
    assert_eq!(world.done(&["libc6"], &[]).unwrap(), "+libc6 2.37", "what is asked for by name is brought up to date");
    assert_eq!(world.done(&["base", "libc6"], &[]).unwrap(), "+base 2, +libc6 2.37");
    assert_eq!(world.done(&[], &[]).unwrap(), "");
}

#[test]
fn of_several_ways_the_first_is_taken_and_one_that_is_there_before_it() {
    let offered = "a 1; Depends: x | y | z\nx 1\ny 1\nz 1\nb 1; Depends: y";
    assert_eq!(World::new("", offered).done(&["a"], &[]).unwrap(), "+a 1, +x 1");
    assert_eq!(World::new("z 1", offered).done(&["a"], &[]).unwrap(), "+a 1");
    let without_x = offered.replace("x 1\n", "x 1; Depends: nothing\n");
    assert_eq!(World::new("", &without_x).done(&["a"], &[]).unwrap(), "+a 1, +y 1");
}

#[test]
fn names_that_are_provided() {
    let offered = "a 1; Depends: mta\nb 1; Depends: api (>= 2)\npostfix 1; Provides: mta; Priority: optional\n\
                   exim 1; Provides: mta, api; Priority: standard\nnew 1; Provides: api (= 2)\nold 1; Provides: api (= 1)";
    let world = World::new("", offered);
    assert_eq!(world.done(&["a"], &[]).unwrap(), "+a 1, +exim 1", "by priority");
    assert_eq!(World::new("postfix 1; Provides: mta", offered).done(&["a"], &[]).unwrap(), "+a 1");
    // Without a version it stands for none (Policy 7.5).
    assert_eq!(world.done(&["b"], &[]).unwrap(), "+b 1, +new 1");
    assert_eq!(
        world.done(&["mta"], &[]).unwrap_err(),
        "`mta` is no package, but provided by exim, postfix: ask for one of them"
    );
}

#[test]
fn what_cannot_stand_together() {
    let offered = "a 1; Conflicts: mta; Provides: mta\nb 1; Breaks: c (<< 2)\nc 1\nd 1; Depends: a, exim\n\
                   exim 1; Provides: mta; Conflicts: mta";
    // A package does not refuse what it provides itself; another one that provides it has to go.
    let world = World::new("exim 1; Provides: mta; Conflicts: mta\nuser 1; Depends: exim\nother 1", offered);
    assert_eq!(world.done(&["a"], &[]).unwrap(), "+a 1, -exim, -user");
    assert_eq!(World::new("c 1", offered).done(&["b"], &[]).unwrap(), "+b 1, -c");
    assert_eq!(World::new("c 1", &format!("{offered}\nc 3")).done(&["b"], &[]).unwrap(), "+b 1, +c 3");
    let error = world.done(&["d"], &[]).unwrap_err();
    assert!(error.contains("cannot be installed together") && error.contains("exim"), "{error}");
    // What is essential never goes.
    let essential = World::new("exim 1; Provides: mta; Conflicts: mta; Essential: yes", offered);
    assert!(essential.done(&["a"], &[]).unwrap_err().contains("exim"));
}

#[test]
fn a_provided_name_is_one_package_in_whatever_versions() {
    let two = World::new("exim 1; Provides: mta", "exim 2; Provides: mta\npostfix 1; Provides: mta");
    assert_eq!(
        two.done(&["mta"], &[]).unwrap_err(),
        "`mta` is no package, but provided by exim, postfix: ask for one of them"
    );
    let one = World::new("exim 1; Provides: mta", "exim 2; Provides: mta");
    assert_eq!(one.done(&["mta"], &[]).unwrap(), "+exim 2");
}

#[test]
fn what_must_stay() {
    for (field, why) in [
        ("Essential: yes", "essential"),
        ("Protected: yes", "protected (`Protected: yes`)"),
        ("Important: yes", "protected (`Protected: yes`)"),
    ] {
        let world = World::new(&format!("a 1; {field}\nb 1; Conflicts: x"), "x 1; Conflicts: a\na 2");
        assert_eq!(world.done(&[], &["a"]).unwrap_err(), format!("`a` cannot be removed: it is {why}"));
        assert!(world.done(&["x"], &[]).unwrap_err().contains("cannot both be there"), "{field}");
        assert_eq!(world.done(&["a"], &["b"]).unwrap(), "+a 2, -b", "another version is no removal");
    }
}

#[test]
fn what_is_on_hold_does_not_change() {
    let held = "a 1; Status: hold ok installed\nb 1; Depends: a";
    let world = World::new(held, "a 2\nc 1; Depends: a (>= 2)\nd 1; Conflicts: a\nb 2; Depends: a (>= 1)");
    assert_eq!(world.done(&["a", "b"], &[]).unwrap(), "+b 2", "also where its name is given");
    assert_eq!(world.done(&["a=2"], &[]).unwrap_err(), "`a` is on hold in version 1, and version 2 is asked for");
    assert_eq!(world.done(&[], &["a"]).unwrap_err(), "`a` cannot be removed: it is on hold (dpkg's selection `hold`)");
    for name in ["c", "d"] {
        let error = world.done(&[name], &[]).unwrap_err();
        assert!(error.contains("a 1 is on hold"), "{error}");
    }
}

#[test]
fn what_was_asked_for_and_is_there() {
    let world = World::new("a 2\nb 1\nc 1; Provides: v", "a 1\nb 2\nd 1");
    let asked = ["a", "b", "c=1", "d", "v"].map(str::to_owned).to_vec();
    let request = Request { install: asked, ..Request::default() };
    let solution = world.resolve(&request).unwrap();
    let kept: Vec<_> = solution.kept.iter().map(|it| (it.name, it.version)).collect();
    assert_eq!(kept, [("a", "2"), ("c", "1")]);
}

#[test]
fn packages_that_wait_for_triggers_are_there() {
    for state in ["triggers-awaited", "triggers-pending"] {
        let world = World::new(&format!("a 1; Status: install ok {state}"), "b 1; Depends: a\na 2");
        assert_eq!(world.done(&["b"], &[]).unwrap(), "+b 1", "{state}");
    }
}

#[test]
fn packages_that_must_be_of_one_version_change_together() {
    let installed = "lib 1\ntool 1; Depends: lib (= 1)\nplugin 1; Depends: tool (= 1)";
    let offered = "lib 2\ntool 2; Depends: lib (= 2)\nplugin 2; Depends: tool (= 2)\na 1; Depends: lib (>= 2)";
    assert_eq!(World::new(installed, offered).done(&["a"], &[]).unwrap(), "+a 1, +lib 2, +plugin 2, +tool 2");
}

#[test]
fn what_is_removed_takes_with_it_what_needs_it() {
    let installed = "snapd 1\nstore 1; Depends: snapd\nbase 1; Essential: yes\nother 1; Depends: snapd | base";
    let world = World::new(installed, "a 1; Depends: snapd");
    assert_eq!(world.done(&[], &["snapd"]).unwrap(), "-snapd, -store");
    assert_eq!(world.done(&[], &["unknown"]).unwrap(), "", "what is not there is removed already");
    assert!(world.done(&["a"], &["snapd"]).unwrap_err().contains("snapd"));
}

#[test]
fn versions_and_sources() {
    let mut world = World::new("", "a 2\na 1\nb 1");
    world.backports = packages("a 3\nb 1~\nc 1", "");
    assert_eq!(world.done(&["a", "c"], &[]).unwrap(), "+a 2, +c 1", "a source that is asked last");
    assert_eq!(world.done(&["a=1"], &[]).unwrap(), "+a 1");
    assert_eq!(world.done(&["a=3"], &[]).unwrap(), "+a 3");
    let error = world.done(&["b=7"], &[]).unwrap_err();
    assert_eq!(error, "no source has version 7 of `b`; there is 1");
    let error = world.resolve(&Request { install: vec!["aa".into()], ..Request::default() }).unwrap_err();
    assert!(matches!(error, ResolveError::Unknown { .. }), "{error}");
    // What is installed is later than what is offered.
    assert_eq!(World::new("a 9", "a 2").done(&["a"], &[]).unwrap(), "");
}

#[test]
fn nothing_goes_back_to_an_earlier_version_unasked() {
    let world = World::new("libfoo 1.1", "libfoo 1.0\nlibfoo-dev 1.0; Depends: libfoo (= 1.0)");
    world.done(&["libfoo-dev"], &[]).unwrap_err();
    assert_eq!(world.done(&["libfoo"], &[]).unwrap(), "");
    assert_eq!(world.done(&["libfoo-dev", "libfoo=1.0"], &[]).unwrap(), "+libfoo 1.0, +libfoo-dev 1.0");
}

#[test]
fn other_architectures() {
    let offered = "a 1; Depends: python:any\nb 1; Depends: perl:any\nc 1; Depends: python:armhf\nd 1; Depends: python:arm64\n\
                   python 3; Multi-Arch: allowed\nperl 5; Multi-Arch: foreign";
    let world = World::new("", offered);
    assert_eq!(world.done(&["a"], &[]).unwrap(), "+a 1, +python 3");
    assert_eq!(world.done(&["d"], &[]).unwrap(), "+d 1, +python 3");
    assert_eq!(world.done(&["python:arm64"], &["a:arm64"]).unwrap(), "+python 3");
    assert_eq!(
        world.done(&["python:armhf"], &[]).unwrap_err(),
        "`python` is asked for as armhf, and the image is arm64; packages of others cannot be installed"
    );
    for name in ["b", "c"] {
        assert!(world.done(&[name], &[]).is_err(), "{name}");
    }
    let foreign = Packages::parse("Package: a\nVersion: 1\nArchitecture: amd64\n".into()).unwrap();
    let sources = [Source { packages: &foreign, priority: 500, is_pinned: false }];
    let universe = Universe::new("arm64", &world.installed, &sources, &[]).unwrap();
    assert!(universe.resolve(&Request { install: vec!["a".into()], ..Request::default() }).is_err());
}

#[test]
fn why_not_is_said_in_words() {
    let offered = "a 1; Depends: x | b\nb 1; Depends: c (>= 5)\nc 2\nd 1; Conflicts: virtual\ne 1; Depends: f\nf 1; Provides: virtual\ng 1; Depends: nothing | nowhere";
    let world = World::new("h 1; Essential: yes; Provides: virtual", offered);
    let why = |install: &[&str]| world.done(install, &[]).unwrap_err();
    let head = "the packages cannot be installed together:";
    assert_eq!(
        why(&["a"]),
        format!("{head}\nno package is `c (>= 5)`; there is c 2\n  a 1 was asked for; it needs b 1 (`b`)")
    );
    assert_eq!(why(&["g"]), format!("{head}\nno package is `nothing | nowhere`\n  g 1 was asked for"));
    assert_eq!(
        why(&["d"]),
        format!(
            "{head}\nd 1 and h 1 cannot both be there (`Conflicts: virtual`)\n  d 1 was asked for\n  h 1 is installed"
        )
    );
    let world = World::new("", offered);
    assert_eq!(
        world.done(&["d", "e"], &[]).unwrap_err(),
        format!(
            "{head}\nd 1 and f 1 cannot both be there (`Conflicts: virtual`)\n  d 1 was asked for\n  \
             e 1 was asked for; it needs f 1 (`f`)"
        )
    );
    // What could go is not why.
    let world = World::new("user 1; Depends: lib\nlib 1\nbase 1; Essential: yes; Depends: lib", "a 1; Depends: lib");
    assert_eq!(
        world.done(&[], &["lib"]).unwrap_err(),
        format!("{head}\nlib 1 is not to be there\n  base 1 is installed; it needs lib 1 (`lib`)")
    );
    let world = World::new("user 1; Depends: lib\nlib 1", "a 1; Depends: lib");
    assert_eq!(
        world.done(&["a"], &["lib"]).unwrap_err(),
        format!("{head}\nlib 1 is not to be there\n  a 1 was asked for; it needs lib 1 (`lib`)")
    );
    let world = World::new("", offered);
    let error = world.done(&["d"], &["d"]).unwrap_err();
    assert!(error.contains("d 1 is not to be there"), "{error}");
}

#[test]
fn the_same_question_has_the_same_answer() {
    let offered: String = (0..60)
        .map(|number| {
            let needs =
                [1, 2, 3].map(|it| format!("p{} | p{}", (number * 7 + it) % 60, (number * 5 + it) % 60)).join(", ");
            format!("p{number} 1; Depends: {needs}; Conflicts: p{}\n", (number + 29) % 60)
        })
        .collect();
    let world = World::new("", &offered);
    let answers: std::collections::BTreeSet<_> = (0..20).map(|_| world.done(&["p1"], &[])).collect();
    assert_eq!(answers.len(), 1);
}
