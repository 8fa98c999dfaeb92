//! Text in columns.

/// Between two columns.
const GAP: &str = "   ";

/// Rows below a header, every column as wide as its widest cell.
#[derive(Debug)]
pub(crate) struct Table {
    columns: usize,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table below `header`.
    pub(crate) fn new<S: Into<String>>(header: impl IntoIterator<Item = S>) -> Self {
        let header: Vec<String> = header.into_iter().map(Into::into).collect();
        Table { columns: header.len(), rows: vec![header] }
    }

    /// Adds a row, of as many cells as the header has; an empty cell is shown as `-`.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.columns, "{cells:?} does not fit the header");
        self.rows.push(cells);
    }

    /// How many characters each column takes.
    pub(crate) fn widths(&self) -> Vec<usize> {
        let width =
            |column: usize| self.rows.iter().filter_map(|r| r.get(column)).map(|c| c.chars().count()).max();
        (0..self.columns).map(|column| width(column).unwrap_or(0).max(1)).collect()
    }

    /// The whole, each row ended by a line feed.
    pub(crate) fn render(&self) -> String {
        let widths = self.widths();
        self.rows.iter().map(|row| line(row, &widths)).collect()
    }
}

/// One row in columns of at least `widths`, ended by a line feed.
pub(crate) fn line(cells: &[String], widths: &[usize]) -> String {
    let mut text = String::new();
    for (i, cell) in cells.iter().enumerate() {
        let cell = if cell.is_empty() { "-" } else { cell };
        if i > 0 {
            text.push_str(GAP);
        }
        text.push_str(cell);
        if i + 1 < cells.len() {
            let width = widths.get(i).copied().unwrap_or(0);
            text.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count())));
        }
    }
    text.push('\n');
    text
}

/// Names and what they stand for, one a line, the values aligned; a value of several lines goes on below itself.
pub(crate) fn fields(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0) + 1;
    let mut text = String::new();
    for (name, value) in pairs {
        let mut label = format!("{name}:");
        for part in value.lines().chain(value.is_empty().then_some("-")) {
            text.push_str(&format!("{label:<width$}  {part}\n"));
            label.clear();
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_lines_end_clean() {
        let mut table = Table::new(["NAME", "READY", "AGE"]);
        table.row(vec!["web-app".into(), "1/1".into(), "3m".into()]);
        table.row(vec!["ä".into(), String::new(), "2h".into()]);
        assert_eq!(
            table.render(),
            "NAME      READY   AGE\n\
             web-app   1/1     3m\n\
             ä         -       2h\n"
        );
    }

    #[test]
    fn a_row_printed_later_keeps_the_columns() {
        assert_eq!(line(&["a".into(), "b".into()], &[4, 1]), "a      b\n");
    }

    #[test]
    fn values_of_fields_stand_below_one_another() {
        assert_eq!(
            fields(&[("Name", "web".into()), ("Problem", "one\ntwo".into()), ("Ports", String::new())]),
            "Name:     web\n\
             Problem:  one\n          two\n\
             Ports:    -\n"
        );
    }
}
