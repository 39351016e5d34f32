//! Lines in columns, which fit the terminal.

use std::borrow::Cow;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// What stands between two columns.
const GAP: &str = "  ";
/// Long text is shown in no less than this, however narrow the terminal.
const LONG_MIN: usize = 12;
/// `16:00:00`
const CLOCK: usize = 8;

/// A column: its header, and on which side its cells stand.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Column {
    /// Text.
    Left(&'static str),
    /// Numbers.
    Right(&'static str),
    /// Text that is left out where a terminal is too narrow, the last column first.
    SpareLeft(&'static str),
    /// Numbers of which the same holds.
    SpareRight(&'static str),
    /// Instants, of which the clock alone is shown where a terminal is too narrow without what can be spared, too.
    Time(&'static str),
    /// Numbers that are left out where it is too narrow even then, the last column first.
    LateRight(&'static str),
    /// Text that is cut when all that did not help.
    Long(&'static str),
}

/// Lines in columns, which fit the terminal where that can be. They can go on: a log that is followed has to align
/// lines that are not there yet.
#[derive(Clone, Debug)]
pub(crate) struct Columns {
    columns: &'static [Column],
    widths: Vec<usize>,
    is_left_out: Vec<bool>,
}

impl Column {
    pub(crate) fn header(self) -> &'static str {
        match self {
            Self::Left(header)
            | Self::Right(header)
            | Self::SpareLeft(header)
            | Self::SpareRight(header)
            | Self::Time(header)
            | Self::LateRight(header)
            | Self::Long(header) => header,
        }
    }

    pub(crate) fn pad(self, cell: &str, width: usize) -> String {
        let cell = match self {
            Self::Long(_) => cut(cell, width),
            Self::Time(_) if width == CLOCK => {
                cell.get(cell.len().saturating_sub(CLOCK)..).unwrap_or(cell).into()
            }
            _ => cell.into(),
        };
        let room = " ".repeat(width.saturating_sub(cell.width()));
        match self {
            Self::Left(_) | Self::SpareLeft(_) | Self::Time(_) | Self::Long(_) => format!("{cell}{room}"),
            Self::Right(_) | Self::SpareRight(_) | Self::LateRight(_) => format!("{room}{cell}"),
        }
    }

    fn is_spare(self) -> bool {
        matches!(self, Self::SpareLeft(_) | Self::SpareRight(_))
    }

    fn is_late(self) -> bool {
        matches!(self, Self::LateRight(_))
    }

    fn is_time(self) -> bool {
        matches!(self, Self::Time(_))
    }

    fn is_long(self) -> bool {
        matches!(self, Self::Long(_))
    }
}

impl Columns {
    pub(crate) fn new(columns: &'static [Column]) -> Self {
        let widths = columns.iter().map(|column| column.header().width()).collect();
        Self { widths, columns, is_left_out: vec![false; columns.len()] }
    }

    /// Header and rows, aligned; or what to say when there are none.
    pub(crate) fn table(columns: &'static [Column], rows: &[Vec<String>], when_empty: &str) -> String {
        if rows.is_empty() {
            return when_empty.to_owned();
        }
        let mut layout = Self::new(columns);
        layout.fit(rows);
        layout.narrow(terminal_width());
        let lines = rows.iter().map(|row| layout.line(row));
        std::iter::once(layout.header()).chain(lines).collect::<Vec<_>>().join("\n")
    }

    /// Makes the columns wide enough for these rows too.
    pub(crate) fn fit(&mut self, rows: &[Vec<String>]) {
        for row in rows {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = cell.width().max(*width);
            }
        }
    }

    /// Leaves out what can be spared until a line is no longer than this, or nothing is left that can; then times lose their
    /// day, some numbers are left out, and long text is cut.
    pub(crate) fn narrow(&mut self, width: Option<usize>) {
        let Some(width) = width else { return };
        self.leave_out(width, Column::is_spare);
        for place in (0..self.columns.len()).filter(|place| self.columns[*place].is_time()) {
            let is_too_long = self.width() > width;
            self.widths[place] = if is_too_long { CLOCK } else { self.widths[place] };
        }
        self.leave_out(width, Column::is_late);
        for place in (0..self.columns.len()).rev().filter(|place| self.columns[*place].is_long()) {
            let excess = self.width().saturating_sub(width);
            let least = self.columns[place].header().width().max(LONG_MIN).min(self.widths[place]);
            self.widths[place] = self.widths[place].saturating_sub(excess).max(least);
        }
    }

    /// Leaves out such columns until a line is no longer than this.
    fn leave_out(&mut self, width: usize, can_be: impl Fn(Column) -> bool) {
        for place in (0..self.columns.len()).rev() {
            self.is_left_out[place] |= self.width() > width && can_be(self.columns[place]);
        }
    }

    /// How long a line is.
    fn width(&self) -> usize {
        let shown = self.widths.iter().zip(&self.is_left_out).filter(|(_, is_left_out)| !**is_left_out);
        shown.map(|(width, _)| width + GAP.len()).sum::<usize>().saturating_sub(GAP.len())
    }

    pub(crate) fn header(&self) -> String {
        let headers: Vec<String> = self.columns.iter().map(|column| column.header().to_uppercase()).collect();
        self.line(&headers)
    }

    pub(crate) fn line(&self, row: &[String]) -> String {
        let cells = self.columns.iter().zip(&self.widths).zip(row).zip(&self.is_left_out);
        let shown = cells.filter(|(_, is_left_out)| !**is_left_out);
        let cells: Vec<String> = shown.map(|(((column, width), cell), _)| column.pad(cell, *width)).collect();
        cells.join(GAP).trim_end().to_owned()
    }
}

/// The beginning of a text that is longer than that.
fn cut(text: &str, width: usize) -> Cow<'_, str> {
    if text.width() <= width {
        return text.into();
    }
    let mut used = 1;
    let fits = |letter: &char| {
        used += letter.width().unwrap_or(0);
        used <= width
    };
    text.chars().take_while(fits).chain(['…']).collect::<String>().into()
}

/// How many characters a line of standard output has, where that is a terminal.
pub(crate) fn terminal_width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    (size.ws_col > 0).then_some(size.ws_col.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_right_and_texts_left() {
        const COLUMNS: [Column; 3] = [Column::Left("name"), Column::Right("n"), Column::Left("note")];
        let row = |name: &str, n: &str, note: &str| vec![name.to_owned(), n.to_owned(), note.to_owned()];
        let rows = [row("a", "1", ""), row("longer", "1000", "x")];
        let expected = "NAME       N  NOTE\na          1\nlonger  1000  x";
        assert_eq!(Columns::table(&COLUMNS, &rows, "none"), expected);
        assert_eq!(Columns::table(&COLUMNS, &[], "none"), "none");
    }

    #[test]
    fn what_can_be_spared_is_left_out_where_a_line_is_too_long_and_the_last_first() {
        const COLUMNS: [Column; 4] =
            [Column::Left("name"), Column::SpareLeft("of"), Column::SpareRight("n"), Column::Left("note")];
        let row = ["a", "b", "1", "x"].map(str::to_owned).to_vec();
        let line = |width| {
            let mut layout = Columns::new(&COLUMNS);
            layout.fit(std::slice::from_ref(&row));
            layout.narrow(width);
            format!("{}|{}", layout.header(), layout.line(&row))
        };
        let (all, some) = ("NAME  OF  N  NOTE|a     b   1  x", "NAME  OF  NOTE|a     b   x");
        assert_eq!([line(None), line(Some(17)), line(Some(16))], [all, all, some]);
        assert_eq!(
            [line(Some(14)), line(Some(13)), line(Some(1))],
            [some, "NAME  NOTE|a     x", "NAME  NOTE|a     x"]
        );
    }

    #[test]
    fn a_time_loses_its_day_before_numbers_go_and_a_text_is_cut() {
        const COLUMNS: [Column; 4] =
            [Column::Time("time"), Column::SpareRight("n"), Column::LateRight("in"), Column::Long("model")];
        let line = |width| {
            let row =
                ["2026-11-30 13:43:47", "1", "12", "gpt-4o-mini-2024-07-18"].map(str::to_owned).to_vec();
            let mut layout = Columns::new(&COLUMNS);
            layout.fit(std::slice::from_ref(&row));
            layout.narrow(Some(width));
            layout.line(&row)
        };
        assert_eq!(line(50), "2026-11-30 13:43:47  1  12  gpt-4o-mini-2024-07-18");
        assert_eq!(line(49), "2026-11-30 13:43:47  12  gpt-4o-mini-2024-07-18");
        assert_eq!(line(46), "13:43:47  12  gpt-4o-mini-2024-07-18");
        assert_eq!(line(35), "13:43:47  gpt-4o-mini-2024-07-18");
        assert_eq!(line(30), "13:43:47  gpt-4o-mini-2024-07…");
    }

    #[test]
    fn a_long_text_is_cut_where_nothing_is_left_to_spare() {
        const COLUMNS: [Column; 3] = [Column::Right("row"), Column::SpareLeft("of"), Column::Long("detail")];
        let line = |detail: &str, width| {
            let row = ["1", "b", detail].map(str::to_owned).to_vec();
            let mut layout = Columns::new(&COLUMNS);
            layout.fit(std::slice::from_ref(&row));
            layout.narrow(width);
            layout.line(&row)
        };
        let story = "a long story, told again";
        assert_eq!(line(story, None), format!("  1  b   {story}"));
        assert_eq!(line(story, Some(29)), format!("  1  {story}"));
        assert_eq!(line(story, Some(28)), "  1  a long story, told aga…");
        assert_eq!(line(story, Some(1)), "  1  a long stor…");
        assert_eq!(line("short", Some(1)), "  1  short");
        assert_eq!(line("東京東京東京東京", Some(18)), "  1  東京東京東京…");
    }

    #[test]
    fn what_takes_two_places_is_counted_as_two() {
        const COLUMNS: [Column; 2] = [Column::Left("name"), Column::Right("n")];
        let row = |name: &str, n: &str| vec![name.to_owned(), n.to_owned()];
        let rows = [row("東京東", "1"), row("kyoto", "20")];
        assert_eq!(Columns::table(&COLUMNS, &rows, "none"), "NAME     N\n東京東   1\nkyoto   20");
    }
}
