//! Names that were probably meant.

use hivemind_client::Selection;
use hivemind_model::{ApiError, JoinToken, Resource};

use super::{
    Session,
    fault::{Failure, fault},
};

/// How many names a hint gives at most.
const NAMES_MAX: usize = 3;

/// Those of `names` that look like `word`, the nearest first.
pub(crate) fn near<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let mut found: Vec<(usize, &str)> = names
        .into_iter()
        // Names are short; measuring what is not one would take the product of the lengths.
        .filter(|name| word.len() <= 63 && name.len() <= 63)
        .map(|name| (strsim::damerau_levenshtein(word, name), name))
        .filter(|(distance, name)| *distance <= (word.len() / 3).clamp(1, 3) || contains(name, word))
        .collect();
    found.sort();
    found.into_iter().map(|(_, name)| name).take(NAMES_MAX).collect()
}

fn contains(name: &str, word: &str) -> bool {
    word.len() >= 3 && name.len() >= 3 && (name.contains(word) || word.contains(name))
}

impl Session {
    /// The objects of a kind that answer to `words`, in their order. A word may be `kind/name`, as `-o name` prints it.
    /// One that none answers to is told with names like it.
    pub(crate) async fn find_all<T: Resource>(
        &self,
        namespace: Option<&str>,
        words: &[&str],
    ) -> Result<Vec<T>, Failure> {
        let all = self.all::<T>(namespace).await?;
        words.iter().map(|word| find(namespace, word, &all)).collect()
    }

    /// As [`Session::find_all`], of one word.
    pub(crate) async fn find_one<T: Resource>(
        &self,
        namespace: Option<&str>,
        word: &str,
    ) -> Result<T, Failure> {
        find(namespace, word, &self.all::<T>(namespace).await?)
    }

    async fn all<T: Resource>(&self, namespace: Option<&str>) -> Result<Vec<T>, Failure> {
        let selection = Selection { namespace: namespace.map(str::to_owned), app: None };
        Ok(self.client.list::<T>(&selection).await?.items)
    }
}

/// The one of `all`, which are those of `namespace`, that `word` names.
///
/// # Errors
/// That there is none, with those whose names are near.
pub(crate) fn find<T: Resource>(namespace: Option<&str>, word: &str, all: &[T]) -> Result<T, Failure> {
    let bare = word.strip_prefix(T::ID_PREFIX).and_then(|r| r.strip_prefix('/')).unwrap_or(word);
    let found = all.iter().find(|object| object.metadata().answers_to(bare)).cloned();
    found.ok_or_else(|| no_such::<T>(namespace, bare, all))
}

fn no_such<T: Resource>(namespace: Option<&str>, word: &str, all: &[T]) -> Failure {
    let (noun, command) = match T::KIND {
        JoinToken::KIND => ("join token", "node token"),
        _ => (T::ID_PREFIX, T::ID_PREFIX),
    };
    let place = namespace.map(|n| format!(" in namespace {n:?}")).unwrap_or_default();
    fault(T::NOT_FOUND, format!("no {noun} named {word:?}{place}"), hint(command, word, names(all)))
}

fn names<T: Resource>(all: &[T]) -> Vec<&str> {
    all.iter().map(|object| object.metadata().name.as_str()).collect()
}

fn hint(kind: &str, word: &str, names: Vec<&str>) -> String {
    let near: Vec<String> = near(word, names).into_iter().map(|name| format!("{name:?}")).collect();
    let all = format!("see what there is: hivemind {kind} ls");
    if near.is_empty() { all } else { format!("did you mean {}? {all}", near.join(" or ")) }
}

/// The same error with names like `word` in its hint.
pub(crate) fn with_near<'a>(
    mut error: ApiError,
    kind: &str,
    word: &str,
    names: impl IntoIterator<Item = &'a str>,
) -> ApiError {
    error.hint = hint(kind, word, names.into_iter().collect());
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_look_alike_are_found_the_nearest_first() {
        let names = ["only-client", "only-clients", "deny-all", "db"];
        assert_eq!(near("only-clint", names), ["only-client", "only-clients"]);
        assert_eq!(near("client", names), ["only-client", "only-clients"]);
        assert_eq!(near("dB", names), ["db"]);
        assert!(near("web", names).is_empty() && near("", names).is_empty());
        assert!(near(&"x".repeat(10_000), names).is_empty());
    }
}
