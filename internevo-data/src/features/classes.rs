//! What kind of character a character is: Python's, spaCy's and datatrove's classes in one table look-up.
//!
//! The classes are data (`spacy/classes.tsv`, which says who made it), so that the rules mean what they mean in the tools they come
//! from, down to the version of Unicode.

use std::sync::LazyLock;

/// A set of classes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Class(u16);

macro_rules! classes {
    ($($(#[$about:meta])* $name:ident = $row:literal,)*) => {
        classes!(@each 0; $($(#[$about])* $name,)*);
        /// Names in `classes.tsv`, in the order of their bits.
        const ROWS: &[&str] = &[$($row),*];
    };
    (@each $bit:expr; $(#[$about:meta])* $name:ident, $($rest:tt)*) => {
        impl Class {
            $(#[$about])*
            pub(crate) const $name: Self = Self(1 << $bit);
        }
        classes!(@each $bit + 1; $($rest)*);
    };
    (@each $bit:expr;) => {};
}

classes! {
    /// White space, as Python's `str.isspace`.
    SPACE = "space",
    /// A letter, as Python's `str.isalpha`.
    LETTER = "letter",
    /// In datatrove's punctuation set: what a "symbol word" may consist of. Emoji, arrows and `€` are not in it.
    SYMBOL = "symbol",
    /// Unicode's general categories P*.
    PUNCTUATION = "punctuation",
    /// Ends a line well, in datatrove's FineWeb rules.
    TERMINAL = "terminal",
    /// Ends a sentence, in spaCy's sentencizer.
    SENTENCE_END = "sentence_end",
    /// spaCy's letters; its lower and upper case both have the scripts without case.
    ALPHA = "alpha",
    /// See [`Class::ALPHA`].
    LOWER = "lower",
    /// See [`Class::ALPHA`].
    UPPER = "upper",
    /// spaCy's quotation marks.
    QUOTE = "quote",
    /// spaCy's symbols: dingbats, emoji.
    ICON = "icon",
    /// A token of its own at the beginning of what white space separates.
    PREFIX = "prefix",
    /// A token of its own at the end of what white space separates.
    SUFFIX = "suffix",
    /// After these, a period at the end is a token of its own.
    BEFORE_PERIOD = "before_period",
    /// Currency signs.
    CURRENCY = "currency",
}

impl Class {
    /// Are all classes of `other` in this set?
    #[inline]
    pub(crate) const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Is any class of `other` in this set?
    #[inline]
    pub(crate) const fn has_any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    #[inline]
    pub(crate) const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    #[inline]
    pub(crate) const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The classes of every character.
pub(crate) struct Classes {
    /// By code point, for the basic multilingual plane.
    basic: Box<[Class; 0x1_0000]>,
    /// Ranges beyond it, ascending: first, last, classes.
    beyond: Vec<(u32, u32, Class)>,
}

static CLASSES: LazyLock<Classes> = LazyLock::new(|| Classes::parse(include_str!("spacy/classes.tsv")));

impl Classes {
    /// The one table. Hold on to it in loops.
    #[inline]
    pub(crate) fn get() -> &'static Self {
        &CLASSES
    }

    /// Classes of `c`.
    #[inline]
    pub(crate) fn of(&self, c: char) -> Class {
        match self.basic.get(c as usize) {
            Some(class) => *class,
            None => self.beyond(c as u32),
        }
    }

    #[cold]
    fn beyond(&self, code: u32) -> Class {
        let covers = self.beyond.iter().filter(|(first, last, _)| (*first..=*last).contains(&code));
        covers.fold(Class::default(), |found, (.., class)| found.or(*class))
    }

    fn parse(table: &str) -> Self {
        let basic = vec![Class::default(); 0x1_0000].into_boxed_slice();
        let mut classes = Self { basic: basic.try_into().expect("as long as the plane"), beyond: Vec::new() };
        for line in table.lines().filter(|line| !line.starts_with('#')) {
            let (name, ranges) = line.split_once('\t').expect("a name, a tab, ranges");
            let bit = ROWS.iter().position(|row| *row == name).expect("every row of the table is a class");
            for range in ranges.split(' ') {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                let code = |digits: &str| u32::from_str_radix(digits, 16).expect("hexadecimal");
                classes.add(code(first), code(last), Class(1 << bit));
            }
        }
        classes
    }

    fn add(&mut self, first: u32, last: u32, class: Class) {
        let end = self.basic.len() as u32;
        for code in first..=last.min(end - 1) {
            let slot = &mut self.basic[code as usize];
            *slot = slot.or(class);
        }
        if last >= end {
            self.beyond.push((first.max(end), last, class));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_has_the_classes_that_python_and_spacy_give_it() {
        let of = |c| Classes::get().of(c);
        assert!(of('a').has(Class::LETTER.or(Class::ALPHA).or(Class::LOWER)) && !of('a').has_any(Class::UPPER));
        assert!(of('。').has(Class::SYMBOL.or(Class::PUNCTUATION).or(Class::TERMINAL).or(Class::SENTENCE_END)));
        assert!(
            of('\u{3000}').has(Class::SPACE) && of('\u{1c}').has(Class::SPACE) && !of('\u{200b}').has(Class::SPACE)
        );
        // A sign beyond the basic plane: an emoji is an icon, and no mark.
        assert!(of('😀').has(Class::ICON) && !of('😀').has_any(Class::SYMBOL.or(Class::LETTER)));
        assert_eq!(of('\u{10ffff}'), Class::default());
    }
}
