//! Scalars and what kind of value their text stands for (YAML 1.2 core schema).

/// A scalar as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scalar {
    /// The text after quotes, escapes and folding.
    pub text: String,
    /// Written without quotes, so that the text may stand for a number, a boolean or null.
    pub plain: bool,
}

/// What a scalar stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScalarKind {
    /// Nothing, `~`, `null`.
    Null,
    /// `true`, `false`.
    Bool,
    /// A number, whole or not.
    Number,
    /// Everything else.
    String,
}

impl Scalar {
    /// The kind by the text, where it is plain.
    pub fn kind(&self) -> ScalarKind {
        if !self.plain {
            return ScalarKind::String;
        }
        match self.text.as_str() {
            "" | "~" | "null" | "Null" | "NULL" => ScalarKind::Null,
            "true" | "True" | "TRUE" | "false" | "False" | "FALSE" => ScalarKind::Bool,
            text if is_number(text) => ScalarKind::Number,
            _ => ScalarKind::String,
        }
    }

    /// What a message calls it.
    pub fn describe(&self) -> String {
        match self.kind() {
            ScalarKind::Null => "nothing".to_owned(),
            ScalarKind::Bool => format!("the boolean {}", self.text),
            ScalarKind::Number => format!("the number {}", self.text),
            ScalarKind::String => format!("the text {:?}", shorten(&self.text)),
        }
    }

    /// The whole number that a plain scalar stands for: decimal, `0x` or `0o`; `5.0` and `1e3`
    /// count, as they do in JSON.
    pub fn integer(&self) -> Option<i64> {
        if self.kind() != ScalarKind::Number {
            return None;
        }
        let (negative, digits) = match self.text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, self.text.strip_prefix('+').unwrap_or(&self.text)),
        };
        let magnitude = if let Some(hex) = digits.strip_prefix("0x") {
            i64::from_str_radix(hex, 16).ok()?
        } else if let Some(octal) = digits.strip_prefix("0o") {
            i64::from_str_radix(octal, 8).ok()?
        } else if digits.bytes().all(|b| b.is_ascii_digit()) {
            digits.parse().ok()?
        } else {
            let float: f64 = digits.parse().ok()?;
            // Beyond 2^53 a float no longer says which integer was meant.
            (float.fract() == 0.0 && float.abs() < 9_007_199_254_740_992.0)
                .then_some(float as i64)?
        };
        Some(if negative { -magnitude } else { magnitude })
    }

    /// The number that a plain scalar stands for; never NaN or infinite.
    pub fn number(&self) -> Option<f64> {
        if self.kind() != ScalarKind::Number {
            return None;
        }
        if let Ok(float) = self.text.parse::<f64>() {
            return float.is_finite().then_some(float);
        }
        // Hexadecimal or octal; what does not fit is no quantity that a field asks for.
        let integer = i32::try_from(self.integer()?).ok()?;
        Some(f64::from(integer))
    }
}

/// At most 60 characters of a text, for messages.
pub fn shorten(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// `[-+]? ( digits | digits? . digits? exponent? | 0x… | 0o… )`.
fn is_number(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if let Some(hex) = unsigned.strip_prefix("0x") {
        return !hex.is_empty() && hex.bytes().all(|b| b.is_ascii_hexdigit());
    }
    if let Some(octal) = unsigned.strip_prefix("0o") {
        return !octal.is_empty() && octal.bytes().all(|b| (b'0'..=b'7').contains(&b));
    }
    let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
        Some(at) => (&unsigned[..at], Some(&unsigned[at + 1..])),
        None => (unsigned, None),
    };
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    let mantissa_is_number = match mantissa.split_once('.') {
        Some((whole, fraction)) => {
            digits(whole) && digits(fraction) && !(whole.is_empty() && fraction.is_empty())
        }
        None => !mantissa.is_empty() && digits(mantissa),
    };
    let exponent_is_number = exponent.is_none_or(|exponent| {
        let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        !exponent.is_empty() && digits(exponent)
    });
    mantissa_is_number && exponent_is_number
}
