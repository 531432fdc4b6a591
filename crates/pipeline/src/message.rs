/// What stands before a hint.
const HINT: &str = "\n\nhint: ";

/// An error with its causes, outermost first, and behind all of them what they advise. What another says as well is left out.
pub fn message(error: &anyhow::Error) -> String {
    let (mut text, mut hints) = (String::new(), Vec::<String>::new());
    for cause in error.chain().map(ToString::to_string) {
        let (said, hint) = cause.split_once(HINT).map_or((cause.as_str(), None), |(said, hint)| (said, Some(hint)));
        if said.starts_with(&text) {
            said.clone_into(&mut text);
        } else if !text.contains(said) {
            text = format!("{text}: {said}");
        }
        hints.extend(hint.filter(|hint| !hints.iter().any(|known| known == hint)).map(str::to_owned));
    }
    hints.iter().for_each(|hint| text += &format!("{HINT}{hint}"));
    text
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn nothing_is_said_twice() {
        let error = anyhow!("`a` cannot be `b`, expected `c`").context("`a` cannot be `b`");
        assert_eq!(message(&error), "`a` cannot be `b`, expected `c`");
        let error = anyhow!("no space").context("cannot write `x`: no space").context("train fm2");
        assert_eq!(message(&error), "train fm2: cannot write `x`: no space");
    }

    #[test]
    fn hints_stand_behind_all_causes() {
        let error =
            anyhow!("the system has none").context("cannot start the threads\n\nhint: set fewer").context("train fm2");
        assert_eq!(message(&error), "train fm2: cannot start the threads: the system has none\n\nhint: set fewer");
    }
}
