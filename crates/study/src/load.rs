use std::path::Path;

use choice::nearest;
use toml::{Table, Value};
use vit::{Recipe, RecipeName};

use crate::{KEYS, Key, Study, StudyError};

/// A table's name alone, and a last part that several keys have, mean this key.
const SHORT_FORMS: [(&str, &str); 3] =
    [("recipe", "recipe.name"), ("data", "data.dir"), ("weights", "extract.weights")];

const COMMAND_LINE: &str = "the command line";

/// A batch of as many images takes 5 GB for its largest activation; more never makes the pass faster.
const MAX_EXTRACT_BATCH: usize = 2048;

/// A shard of as many images has 26 GB of FM1 at f16.
const MAX_SHARD_IMAGES: usize = 65_536;

/// More threads than any machine has cores.
const MAX_THREADS: usize = 4096;

impl Study {
    /// Reads `path` and lays the overrides (`key=value`) over it.
    pub fn load(path: &Path, overrides: &[String]) -> Result<Self, StudyError> {
        if !path.is_file() {
            return Err(StudyError::NoFile { path: path.to_owned() });
        }
        Self::parse(&fs_err::read_to_string(path)?, path, overrides)
    }

    /// The same from the file's text.
    pub fn parse(text: &str, path: &Path, overrides: &[String]) -> Result<Self, StudyError> {
        let file: Table = text
            .parse()
            .map_err(|error: toml::de::Error| StudyError::Toml { path: path.to_owned(), reason: error.to_string() })?;
        let (mut assignments, file_name) = (Vec::new(), format!("`{}`", path.display()));
        flatten("", &file, &mut assignments);
        for (key, _) in &assignments {
            known_key(key, &file_name)?;
        }
        let from_file = assignments.len();
        for argument in overrides {
            let (key, value) =
                argument.split_once('=').ok_or_else(|| StudyError::NoOverride { argument: argument.clone() })?;
            assignments.push((full_key(key.trim())?, Value::String(value.trim().to_owned())));
        }
        Self::assigned(&assignments, path).map_err(|error| match error {
            StudyError::Value { key, got, reason, .. } => {
                let set = assignments.iter().rposition(|(of, value)| *of == key && shown(value) == got);
                let set = set.or_else(|| assignments.iter().rposition(|(of, _)| *of == key));
                let place = set.map(|at| if at < from_file { &file_name } else { COMMAND_LINE });
                let place = place.map_or_else(String::new, |place| format!(" (in {place})"));
                StudyError::Value { key, got, reason, place }
            }
            other => other,
        })
    }

    /// The defaults with `assignments` laid over them, one after the other.
    fn assigned(assignments: &[(String, Value)], path: &Path) -> Result<Self, StudyError> {
        let mut study = Self::default();
        // The recipe's name first, since it decides what the recipe's other keys default to.
        let name = assignments.iter().rev().find(|(key, _)| key == "recipe.name");
        if let Some(Value::String(word)) = name.map(|(_, value)| value) {
            let name: RecipeName = word.parse().map_err(|error| value_error("recipe.name", word, &error))?;
            study.recipe = Recipe::named(name);
        }
        let mut table = Table::try_from(&study)
            .map_err(|error| StudyError::Toml { path: path.to_owned(), reason: error.to_string() })?;
        for (key, value) in assignments {
            assign(&mut table, key, value.clone())?;
        }
        let study: Self = table
            .try_into()
            .map_err(|error: toml::de::Error| StudyError::Toml { path: path.to_owned(), reason: error.to_string() })?;
        study.validate()
    }

    fn validate(self) -> Result<Self, StudyError> {
        let key_error = |table: &str, error: vit::VitError| match error {
            vit::VitError::Key { key, got, expected } => {
                let key = if key.contains('.') { key.to_owned() } else { format!("{table}.{key}") };
                value_error(&key, got, &format!("expected {expected}"))
            }
            other => value_error(table, "", &other),
        };
        self.model.validate().map_err(|error| key_error("model", error))?;
        self.recipe.validate().map_err(|error| key_error("recipe", error))?;
        let at_most = |key: &str, value: usize, limit: usize| match value {
            0 => Err(value_error(key, value, &"expected at least 1")),
            _ if value > limit => Err(value_error(key, value, &format!("expected at most {limit}"))),
            _ => Ok(()),
        };
        let memory = self.train.memory_gib;
        if !(memory.is_finite() && memory >= 0.0) {
            return Err(value_error("train.memory_gib", memory, &"expected 0 or a number above"));
        }
        at_most("extract.batch", self.extract.batch.max(1), MAX_EXTRACT_BATCH)?;
        at_most("extract.shard_images", self.extract.shard_images, MAX_SHARD_IMAGES)?;
        at_most("threads", self.threads.max(1), MAX_THREADS)?;
        at_most("number of study.combos", self.study.combos.len(), usize::MAX)?;
        at_most("number of study.seeds", self.study.seeds.len(), usize::MAX)?;
        Ok(self)
    }
}

/// Tables to dotted keys.
fn flatten(prefix: &str, table: &Table, into: &mut Vec<(String, Value)>) {
    for (name, value) in table {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match value {
            Value::Table(table) => flatten(&key, table, into),
            value => into.push((key, value.clone())),
        }
    }
}

fn known_key(key: &str, place: &str) -> Result<(), StudyError> {
    if KEYS.iter().any(|known| known.name == key) {
        return Ok(());
    }
    let last_parts = KEYS.iter().filter_map(|known| known.name.rsplit('.').next());
    let hint = nearest(key, KEYS.iter().map(|known| known.name).chain(last_parts))
        .map_or_else(String::new, |word| format!("; did you mean `{word}`?"));
    let valid: Vec<&str> = KEYS.iter().map(|known| known.name).collect();
    Err(StudyError::UnknownKey { key: key.to_owned(), place: place.to_owned(), hint, valid: valid.join(", ") })
}

/// The key that an override (`key=value`) sets, if there is such a key.
pub fn key_of(argument: &str) -> Option<&'static Key> {
    let (key, _) = argument.split_once('=')?;
    let full = full_key(key.trim()).ok()?;
    KEYS.iter().find(|known| known.name == full)
}

/// The full name of a key as users type it: itself, a short form, or a last part that only one key has.
fn full_key(key: &str) -> Result<String, StudyError> {
    if let Some((_, full)) = SHORT_FORMS.iter().find(|(short, _)| *short == key) {
        return Ok((*full).to_owned());
    }
    if KEYS.iter().any(|known| known.name == key) {
        return Ok(key.to_owned());
    }
    let candidates: Vec<&str> =
        KEYS.iter().map(|known| known.name).filter(|name| name.rsplit('.').next() == Some(key)).collect();
    match candidates.as_slice() {
        [only] => Ok((*only).to_owned()),
        [] => known_key(key, COMMAND_LINE).map(|()| key.to_owned()),
        _ => Err(StudyError::Ambiguous {
            key: key.into(),
            place: COMMAND_LINE.into(),
            candidates: candidates.join(", "),
        }),
    }
}

fn value_error(key: &str, got: impl ToString, reason: &impl ToString) -> StudyError {
    let (got, reason) = (got.to_string(), reason.to_string());
    // A choice says by itself what it cannot be.
    let said = [format!("cannot be `{got}`, "), format!("cannot be {got}, ")];
    let expected = said.iter().find_map(|said| Some(reason.split_once(said)?.1.to_owned()));
    let reason = expected.unwrap_or(reason);
    StudyError::Value { key: key.to_owned(), got, reason, place: String::new() }
}

/// Sets `key` in `table` and checks that the whole is still a configuration.
fn assign(table: &mut Table, key: &str, value: Value) -> Result<(), StudyError> {
    let (outer, name) = key.rsplit_once('.').map_or((None, key), |(outer, name)| (Some(outer), name));
    let shown = shown(&value);
    let mut changed = table.clone();
    let inner = match outer {
        None => &mut changed,
        Some(outer) => changed
            .entry(outer)
            .or_insert_with(|| Value::Table(Table::new()))
            .as_table_mut()
            .ok_or_else(|| value_error(key, &shown, &"expected a table"))?,
    };
    let value = converted(key, value, inner.get(name)).map_err(|reason| value_error(key, &shown, &reason))?;
    inner.insert(name.to_owned(), value);
    let checked: Result<Study, _> = changed.clone().try_into();
    checked.map_err(|error: toml::de::Error| value_error(key, &shown, &error.message()))?;
    *table = changed;
    Ok(())
}

/// `value` in the type that `current` has: a word from the command line becomes a number, a whole number a
/// fraction, a list a comma-separated text, and the other way round.
fn converted(key: &str, value: Value, current: Option<&Value>) -> Result<Value, String> {
    // The one number without a default.
    let whole = matches!(current, Some(Value::Integer(_))) || key == "seed";
    match (value, current) {
        (Value::String(text), _) if whole => {
            text.parse().map(Value::Integer).map_err(|_| "expected a whole number".to_owned())
        }
        (Value::String(text), Some(Value::Float(_))) => {
            text.parse().map(Value::Float).map_err(|_| "expected a number".to_owned())
        }
        (Value::Integer(number), Some(Value::Float(_))) => Ok(Value::Float(number as f64)),
        (Value::String(text), Some(Value::Boolean(_))) => {
            text.parse().map(Value::Boolean).map_err(|_| "expected true or false".to_owned())
        }
        (Value::String(text), Some(Value::Array(_))) if text.trim() == "all" && key == "study.combos" => {
            Ok(Value::Array(
                sources::Combination::all().iter().map(|combination| Value::String(combination.to_string())).collect(),
            ))
        }
        (Value::String(text), Some(Value::Array(_))) => Ok(Value::Array(
            text.split(',')
                .map(str::trim)
                .filter(|word| !word.is_empty())
                // Seeds are the only list of numbers; a file may be called `7`.
                .map(|word| match word.parse() {
                    Ok(number) if key == "study.seeds" => Value::Integer(number),
                    _ => Value::String(word.to_owned()),
                })
                .collect(),
        )),
        (value @ Value::Array(_), Some(Value::String(_))) => Ok(Value::String(shown(&value))),
        (value, _) => Ok(value),
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(shown).collect::<Vec<_>>().join(","),
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use vit::{Optimizer, Schedule};

    use super::*;
    use crate::CombinationChoice;

    fn parse(text: &str, overrides: &[&str]) -> Result<Study, StudyError> {
        let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
        Study::parse(text, Path::new("study.toml"), &overrides)
    }

    fn message(text: &str, overrides: &[&str]) -> String {
        parse(text, overrides).unwrap_err().to_string()
    }

    #[test]
    fn every_key_is_described_and_every_described_key_exists() {
        let study = Study {
            seed: Some(1),
            export: crate::ExportConfig { npy: Some("x".into()) },
            eval: crate::EvalConfig { data: Some("x".into()), ..crate::EvalConfig::default() },
            report: crate::ReportConfig { dir: Some("x".into()) },
            ..Study::default()
        };
        let mut flat = Vec::new();
        flatten("", &Table::try_from(&study).unwrap(), &mut flat);
        let mut configured: Vec<&str> = flat.iter().map(|(key, _)| key.as_str()).collect();
        let mut described: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
        configured.sort_unstable();
        described.sort_unstable();
        assert_eq!(configured, described);
    }

    #[test]
    fn an_empty_file_is_the_default_and_overrides_win() {
        assert_eq!(parse("", &[]).unwrap(), Study::default());
        let study = parse("[recipe]\nlr = 1\nsteps = 10", &["combo=fm2+orig", "recipe.lr=0.001", "seed=3"]).unwrap();
        assert_eq!((study.recipe.lr, study.recipe.steps, study.seeds()), (0.001, 10, vec![3]));
        assert_eq!(study.combo, CombinationChoice::These(vec!["orig+fm2".parse().unwrap()]));
    }

    #[test]
    fn a_recipe_changes_the_defaults_only() {
        let study = parse("[recipe]\nlr = 0.25", &["recipe=robust"]).unwrap();
        assert_eq!(study.recipe.optimizer, Optimizer::AdamW);
        assert_eq!(study.recipe.schedule, Schedule::Cosine);
        assert_eq!(study.recipe.lr, 0.25);
    }

    #[test]
    fn short_keys_and_lists() {
        assert_eq!(parse("", &["weights=mine.npz"]).unwrap().extract.weights, "mine.npz");
        let study = parse("", &["lr=0.5", "classes=8", "data=other", "study.seeds=1,2", "study.combos=fm1,fm2+fm3"]);
        let study = study.unwrap();
        assert_eq!((study.recipe.lr, usize::from(study.data.classes)), (0.5, 8));
        assert_eq!((study.data.dir.to_str(), study.seeds()), (Some("other"), vec![1, 2]));
        assert_eq!(study.combinations().len(), 2);
        assert_eq!(parse("[study]\ncombos = \"all\"", &[]).unwrap().combinations().len(), 31);
    }

    #[test]
    fn what_is_wrong_is_named_with_the_nearest() {
        let unknown = message("", &["recipe.lrr=1"]);
        assert!(
            unknown.contains("unknown key `recipe.lrr` in the command line; did you mean `recipe.lr`?"),
            "{unknown}"
        );
        assert!(unknown.contains("valid keys: combo, seed,"), "{unknown}");
        assert!(message("[recpie]\nlr = 1", &[]).contains("`recpie.lr` in `study.toml`; did you mean `recipe.lr`?"));
        assert!(message("", &["combo=fm1+fm7"]).contains("unknown source `fm7`"));
        assert!(message("", &["labels=majorty"]).contains("did you mean `majority`?"));
        assert!(message("", &["classes=7"]).contains("expected 6"));
        assert!(message("", &["steps=many"]).contains("`recipe.steps` cannot be `many`: expected a whole number"));
        assert!(message("", &["batch=3"]).contains("ambiguous: extract.batch, recipe.batch"));
        assert!(message("", &["recipe.lr=-1"]).contains("`recipe.lr` cannot be `-1`"));
        assert!(message("", &["model.fuse=x"]).contains("`model.fuse` cannot be `x`: expected one of sum, seq"));
        assert!(message("", &["classes=9"]).contains("`data.classes` cannot be `9`: expected 6 (without"));
        assert!(message("", &["heads=5"]).contains("model.heads"));
        assert!(message("[recipe]\nlr = 0.1", &["recipe.lr=-1"]).ends_with(" (in the command line)"));
        for wrong in ["[recipe]\nlr = -1", "[recipe]\nsteps = \"many\"", "[extract]\nbatch = 100000"] {
            assert!(message(wrong, &["recipe.batch=32"]).ends_with(" (in `study.toml`)"), "{wrong}");
        }
        assert!(message("", &["fm1"]).contains("expected `key=value`"));
        assert!(message("lr = ", &[]).contains("not valid TOML"));
    }
}
