use std::path::{Path, PathBuf};

use study::{Key, Stage, key_of};

use crate::DEFAULT_CONFIG;

/// Recipes that hints recommend, and the stage whose keys they read if they do not read all of them.
const RECIPES: [(&str, Option<Stage>); 9] = [
    ("extract", Some(Stage::Extract)),
    ("train", Some(Stage::Train)),
    ("eval", Some(Stage::Eval)),
    ("study", None),
    ("report", None),
    ("figure", None),
    ("predict", None),
    ("verify", None),
    ("status", None),
];

/// How a program was called.
#[derive(Clone, Debug)]
pub(crate) struct Invocation {
    /// `key=value`, each.
    pub(crate) overrides: Vec<String>,
    /// The configuration's file.
    pub(crate) config: PathBuf,
}

impl Invocation {
    /// What to type for `recipe` of the justfile.
    pub(crate) fn command(&self, recipe: &str) -> String {
        self.typed(recipe, &self.overrides.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn typed(&self, recipe: &str, overrides: &[&str]) -> String {
        let config = self.config.to_string_lossy();
        let config = if self.config == Path::new(DEFAULT_CONFIG) { vec![] } else { vec!["--config", &config] };
        let words = ["just", recipe].into_iter().chain(overrides.iter().copied()).chain(config);
        words.map(quoted).collect::<Vec<_>>().join(" ")
    }

    /// `text` with the commands that it recommends as they are to be typed to go on in the same way.
    pub(crate) fn as_typed(&self, text: &str) -> String {
        let mut parts = text.split("`just ");
        let mut typed = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let command = part.split_once('`').and_then(|(command, rest)| Some((self.recommended(command)?, rest)));
            typed += &command.map_or_else(|| format!("`just {part}"), |(command, rest)| format!("`{command}`{rest}"));
        }
        typed
    }

    /// What to type for a recipe and overrides of its own, with ours before them, as far as the recipe reads them.
    fn recommended(&self, command: &str) -> Option<String> {
        let mut words = command.split_whitespace();
        let recipe = words.next()?;
        let (_, stage) = RECIPES.iter().find(|(name, _)| *name == recipe)?;
        let own: Vec<&str> = words.collect();
        let is_wanted = |key: &Key| {
            let is_read = stage.is_none_or(|stage| key.stages.contains(&stage));
            is_read && !own.iter().any(|own| key_of(own).is_some_and(|other| other.name == key.name))
        };
        let ours = self.overrides.iter().map(String::as_str).filter(|of| key_of(of).is_some_and(is_wanted));
        Some(self.typed(recipe, &ours.chain(own.iter().copied()).collect::<Vec<_>>()))
    }
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "-_=+.,/:".contains(character);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn called(overrides: &[&str], config: &str) -> Invocation {
        Invocation { overrides: overrides.iter().map(ToString::to_string).collect(), config: config.into() }
    }

    #[test]
    fn commands_are_what_a_shell_takes() {
        let call = called(&["recipe.lr=0.01", "study.variants=classes=8 seed=1"], DEFAULT_CONFIG);
        assert_eq!(call.command("study"), "just study recipe.lr=0.01 'study.variants=classes=8 seed=1'");
        let call = called(&["data.dir=it's"], "other.toml");
        assert_eq!(call.command("study"), r"just study 'data.dir=it'\''s' --config other.toml");
    }

    #[test]
    fn hints_go_on_with_the_same_configuration() {
        let call = called(&["data=my faces", "combo=fm2", "weights=other.pth", "lr=0.1"], "other.toml");
        assert_eq!(
            call.as_typed("`my faces`: no features\n\nhint: run `just extract`, which goes on"),
            "`my faces`: no features\n\nhint: run `just extract 'data=my faces' weights=other.pth --config other.toml`, which goes on"
        );
        assert_eq!(
            call.as_typed("run `just train combo=fm3`"),
            "run `just train 'data=my faces' weights=other.pth lr=0.1 combo=fm3 --config other.toml`"
        );
        assert_eq!(call.as_typed("run `just demo`, or `just"), "run `just demo`, or `just");
        assert_eq!(
            call.as_typed("`it`s` is stale; run `just eval`"),
            "`it`s` is stale; run `just eval 'data=my faces' combo=fm2 weights=other.pth lr=0.1 --config other.toml`"
        );
    }
}
