//! A ticket as a picture, for a camera that looks at the terminal.
//!
//! Bech32m may be written in upper case, which a QR code holds in half the space.

use fast_qr::QRBuilder;

/// The picture, two rows of modules a line; `None` when the text is too long for one.
pub(crate) fn draw(text: &str) -> Option<String> {
    let code = QRBuilder::new(text.to_ascii_uppercase()).build().ok()?;
    Some(code.to_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_of_usual_length_fits_a_terminal() {
        let ticket = format!("pht1{}", "q".repeat(200));
        let picture = draw(&ticket).expect("it fits a code");
        let widths: Vec<usize> = picture.lines().map(|line| line.chars().count()).collect();
        // Version 9 has 53 modules and a margin; lower case would take version 11.
        assert!(widths.iter().all(|width| *width <= 65), "{widths:?}");
        assert!(widths.len() <= 34, "{} lines", widths.len());
    }

    #[test]
    fn what_fits_no_code_is_not_drawn() {
        assert_eq!(draw(&"q".repeat(8_000)), None);
    }
}
