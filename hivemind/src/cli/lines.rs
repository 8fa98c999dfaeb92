//! How two texts differ, line by line.

use std::fmt::Write as _;

use super::fault::Colours;

/// How many lines around a difference are shown.
const AROUND: usize = 3;
/// How much is compared, as the product of the lines of both texts that begin and end alike: above it, all lines in between count as
/// changed.
const COMPARED_MAX: usize = 4_000_000;

/// A line of either text, or of both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line<'a> {
    Both(&'a str),
    Old(&'a str),
    New(&'a str),
}

/// The differences of `new`, which stands at `position`, from `old`, which is in the cluster if it is there, as diff(1) tells them.
pub(crate) fn difference(old: Option<&str>, new: &str, position: &str, colours: Colours) -> String {
    let from = if old.is_some() { "in the cluster" } else { "/dev/null" };
    let mut text = format!("--- {from}\n+++ {position}\n");
    for line in unified(old.unwrap_or_default(), new).lines() {
        let colour = match line.as_bytes().first() {
            Some(b'+') => "32",
            Some(b'-') => "31",
            Some(b'@') => "36",
            _ => "",
        };
        match colour {
            "" => text.push_str(line),
            colour => text.push_str(&colours.paint(colour, line)),
        }
        text.push('\n');
    }
    text
}

/// The differences in the unified format, without the names of the texts; nothing if there are none.
fn unified(old: &str, new: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let lines = compared(&old, &new);
    let differs: Vec<usize> = (0..lines.len()).filter(|at| !matches!(lines[*at], Line::Both(_))).collect();
    let mut text = String::new();
    let mut rest = &differs[..];
    while let Some(first) = rest.first() {
        let near = rest.windows(2).take_while(|pair| pair[1] - pair[0] <= 2 * AROUND).count();
        let (begin, end) = (first.saturating_sub(AROUND), (rest[near] + AROUND + 1).min(lines.len()));
        hunk(&lines, begin, end, &mut text);
        rest = &rest[near + 1..];
    }
    text
}

fn hunk(lines: &[Line<'_>], begin: usize, end: usize, text: &mut String) {
    let count = |of: &[Line<'_>]| {
        let old = of.iter().filter(|line| !matches!(line, Line::New(_))).count();
        let new = of.iter().filter(|line| !matches!(line, Line::Old(_))).count();
        (old, new)
    };
    let (before, within) = (count(&lines[..begin]), count(&lines[begin..end]));
    // Of no lines it is the line before that is named.
    let range = |before: usize, within: usize| match within {
        0 => format!("{before},0"),
        1 => format!("{}", before + 1),
        _ => format!("{},{within}", before + 1),
    };
    let _ = writeln!(text, "@@ -{} +{} @@", range(before.0, within.0), range(before.1, within.1));
    for line in &lines[begin..end] {
        let (sign, line) = match line {
            Line::Both(line) => (' ', line),
            Line::Old(line) => ('-', line),
            Line::New(line) => ('+', line),
        };
        let _ = writeln!(text, "{sign}{line}");
    }
}

/// All lines of both texts in their order, as many as possible shared.
fn compared<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<Line<'a>> {
    let begin = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let (old_rest, new_rest) = (&old[begin..], &new[begin..]);
    let end = old_rest.iter().rev().zip(new_rest.iter().rev()).take_while(|(a, b)| a == b).count();
    let (old_inner, new_inner) = (&old_rest[..old_rest.len() - end], &new_rest[..new_rest.len() - end]);
    let mut lines: Vec<Line<'a>> = old[..begin].iter().map(|line| Line::Both(line)).collect();
    lines.extend(longest(old_inner, new_inner));
    lines.extend(old_rest[old_rest.len() - end..].iter().map(|line| Line::Both(line)));
    lines
}

/// By the longest common subsequence, as every textbook has it.
fn longest<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<Line<'a>> {
    if old.len().saturating_mul(new.len()) > COMPARED_MAX {
        let all = old.iter().map(|line| Line::Old(line));
        return all.chain(new.iter().map(|line| Line::New(line))).collect();
    }
    // `shared[i][j]` is how many lines `old[i..]` and `new[j..]` share.
    let width = new.len() + 1;
    let mut shared = vec![0_u32; (old.len() + 1) * width];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            shared[i * width + j] = match old[i] == new[j] {
                true => shared[(i + 1) * width + j + 1] + 1,
                false => shared[(i + 1) * width + j].max(shared[i * width + j + 1]),
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut lines = Vec::new();
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            lines.push(Line::Both(old[i]));
            (i, j) = (i + 1, j + 1);
        } else if i < old.len()
            && (j == new.len() || shared[(i + 1) * width + j] >= shared[i * width + j + 1])
        {
            lines.push(Line::Old(old[i]));
            i += 1;
        } else {
            lines.push(Line::New(new[j]));
            j += 1;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_told_as_diff_does() {
        assert_eq!(unified("a\nb\n", "a\nb\n"), "");
        assert_eq!(unified("", "a\nb\n"), "@@ -0,0 +1,2 @@\n+a\n+b\n");
        assert_eq!(unified("a\n", ""), "@@ -1 +0,0 @@\n-a\n");
        let old = "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n12\n13\n14\n";
        let new = old.replace("2\n3", "2\nx\n3").replace("13\n", "");
        assert_eq!(
            unified(old, &new),
            "@@ -1,5 +1,6 @@\n 1\n 2\n+x\n 3\n 4\n 5\n@@ -10,5 +11,4 @@\n 10\n 11\n 12\n-13\n 14\n"
        );
    }

    #[test]
    fn texts_that_are_too_large_to_compare_count_as_changed() {
        let many = |word: &str| (0..3_000).map(|i| format!("{word}{i}\n")).collect::<String>();
        let text = unified(&many("a"), &many("b"));
        assert_eq!(text.lines().count(), 6_001);
    }

    /// All texts of at most four lines, each `a` or `b`.
    fn texts() -> Vec<String> {
        let of = |lines: u32| {
            (0..2_u32.pow(lines))
                .map(move |bits| (0..lines).map(|i| ["a\n", "b\n"][(bits >> i & 1) as usize]).collect())
        };
        (0..=4).flat_map(of).collect()
    }

    #[test]
    fn both_texts_can_be_made_of_the_lines_that_are_told() {
        for (old, new) in
            texts().iter().flat_map(|old| texts().into_iter().map(move |new| (old.clone(), new)))
        {
            let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
            let lines = compared(&old, &new);
            let of = |wanted: fn(&Line<'_>) -> bool| -> Vec<&str> {
                lines
                    .iter()
                    .filter(|line| wanted(line))
                    .map(|line| match line {
                        Line::Both(text) | Line::Old(text) | Line::New(text) => *text,
                    })
                    .collect()
            };
            assert_eq!(of(|line| !matches!(line, Line::New(_))), old);
            assert_eq!(of(|line| !matches!(line, Line::Old(_))), new);
        }
    }
}
