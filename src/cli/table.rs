//! Aligned columns for people.
//!
//! It draws no lines and no colour, so that a table can be pasted and grepped.
//! Cells must be printable already; width is counted in characters.

/// A table that grows row by row.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

#[derive(Debug)]
struct Column {
    title: &'static str,
    is_number: bool,
}

/// Between two columns.
const GAP: &str = "  ";

impl Table {
    /// A table with these columns; a title that begins with `>` heads numbers, set to the right.
    pub(crate) fn new(titles: &[&'static str]) -> Table {
        let column = |title: &&'static str| match title.strip_prefix('>') {
            Some(title) => Column {
                title,
                is_number: true,
            },
            None => Column {
                title,
                is_number: false,
            },
        };
        Table {
            columns: titles.iter().map(column).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row; an empty cell is shown as `-`.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.columns.len(), "one cell per column");
        self.rows.push(cells);
    }

    /// The table as lines, each with its newline.
    pub(crate) fn render(&self) -> String {
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|index| self.width(index))
            .collect();
        let titles: Vec<&str> = self.columns.iter().map(|column| column.title).collect();
        let mut text = String::new();
        self.line(&mut text, &widths, &titles);
        for row in &self.rows {
            let cells: Vec<&str> = row
                .iter()
                .map(|cell| if cell.is_empty() { "-" } else { cell.as_str() })
                .collect();
            self.line(&mut text, &widths, &cells);
        }
        text
    }

    fn width(&self, index: usize) -> usize {
        let title = self
            .columns
            .get(index)
            .map_or(0, |column| column.title.chars().count());
        let cells = self.rows.iter().filter_map(|row| row.get(index));
        cells
            .map(|cell| cell.chars().count().max(1))
            .fold(title, usize::max)
    }

    fn line(&self, text: &mut String, widths: &[usize], cells: &[&str]) {
        let mut line = String::new();
        for ((column, width), cell) in self.columns.iter().zip(widths).zip(cells) {
            let padding = " ".repeat(width.saturating_sub(cell.chars().count()));
            let (before, after) = if column.is_number {
                (padding.as_str(), "")
            } else {
                ("", padding.as_str())
            };
            line.extend([before, cell, after, GAP]);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_numbers_stand_to_the_right() {
        let mut table = Table::new(&["PEER", ">WAITING", "STATE"]);
        table.row(vec!["left".into(), "7".into(), "idle".into()]);
        table.row(vec!["a-long-name".into(), "12345".into(), String::new()]);
        assert_eq!(
            table.render(),
            "PEER         WAITING  STATE\n\
             left               7  idle\n\
             a-long-name    12345  -\n"
        );
    }

    #[test]
    fn a_table_without_rows_is_its_titles() {
        assert_eq!(Table::new(&["A", "B"]).render(), "A  B\n");
    }
}
