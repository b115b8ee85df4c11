//! Tables for people: columns under headings, as wide as their longest cell, no lines drawn.

/// A table. Cells come from hostile sources, so control characters are replaced.
#[derive(Clone, Debug, Default)]
pub struct Table {
    headings: Vec<String>,
    rows: Vec<Vec<String>>,
}

const GAP: usize = 3;

impl Table {
    pub fn new(headings: &[&str]) -> Table {
        Table { headings: headings.iter().map(|h| (*h).to_owned()).collect(), rows: Vec::new() }
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = impl Into<String>>) {
        let row = cells
            .into_iter()
            .map(|cell| cell.into().chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect())
            .collect();
        self.rows.push(row);
    }

    /// Lines of at most `width` characters if a width is given; the last column is cut.
    pub fn render(&self, width: Option<usize>) -> String {
        let columns = self.headings.len();
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                let cells = self.rows.iter().filter_map(|row| row.get(column));
                cells.chain([&self.headings[column]]).map(|cell| cell.chars().count()).max().unwrap_or(0)
            })
            .collect();
        let mut out = String::new();
        for row in std::iter::once(&self.headings).chain(&self.rows) {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate().take(columns) {
                line.push_str(cell);
                if column + 1 < columns {
                    let fill = widths[column] - cell.chars().count() + GAP;
                    line.extend(std::iter::repeat_n(' ', fill));
                }
            }
            let line = line.trim_end();
            match width {
                Some(width) => out.extend(line.chars().take(width)),
                None => out.push_str(line),
            }
            out.push('\n');
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_escapes_stay_out() {
        let mut table = Table::new(&["NAME", "ID"]);
        table.row(["brisk_cooper", "4f1c"]);
        table.row(["a\u{1b}[31m", "x"]);
        let text = table.render(None);
        let starts: Vec<_> = text
            .lines()
            .map(|line| line.chars().count() - line.split(' ').next_back().unwrap().len())
            .collect();
        assert_eq!(starts, [15, 15, 15]);
        assert!(!text.contains('\u{1b}'));
        assert_eq!(table.render(Some(4)).lines().next(), Some("NAME"));
    }
}
