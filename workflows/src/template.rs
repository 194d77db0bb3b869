//! `${…}` in texts: where expressions begin and end, and the tokens of one. Knows no names and evaluates nothing.

/// A piece of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// As it stands, escapes undone.
    Text(String),
    /// An expression: its text and the byte where it begins within the whole text.
    Expression(String, usize),
}

/// A text that opens an expression and never ends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unclosed {
    /// The byte of its `${`.
    pub(crate) at: usize,
}

/// Cuts a text into pieces. `$${` stands for a plain `${`.
///
/// # Errors
/// [`Unclosed`] when a `${` has no `}`.
pub(crate) fn pieces(text: &str) -> Result<Vec<Piece>, Unclosed> {
    let mut found = Vec::new();
    let mut plain = String::new();
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        if rest.starts_with("$${") {
            plain.push_str("${");
            at += 3;
        } else if rest.starts_with("${") {
            let body = rest.get(2..).unwrap_or("");
            let length = closing(body).ok_or(Unclosed { at })?;
            if !plain.is_empty() {
                found.push(Piece::Text(std::mem::take(&mut plain)));
            }
            found.push(Piece::Expression(body.get(..length).unwrap_or("").to_owned(), at + 2));
            at += 3 + length;
        } else {
            let next = rest.chars().next().unwrap_or(' ');
            plain.push(next);
            at += next.len_utf8();
        }
    }
    if !plain.is_empty() || found.is_empty() {
        found.push(Piece::Text(plain));
    }
    Ok(found)
}

fn closing(body: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for token in tokens(body) {
        match token.kind {
            TokenKind::Mark('{') => depth += 1,
            TokenKind::Mark('}') if depth == 0 => return Some(token.start),
            TokenKind::Mark('}') => depth -= 1,
            _ => {}
        }
    }
    None
}

/// What a token is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// An identifier or keyword.
    Word(String),
    /// A quoted string without escapes worth decoding: its contents.
    Quoted(String),
    /// A number.
    Number,
    /// One other character.
    Mark(char),
}

/// A token and its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    /// What it is.
    pub(crate) kind: TokenKind,
    /// First byte.
    pub(crate) start: usize,
    /// One past the last byte.
    pub(crate) end: usize,
}

/// The tokens of an expression, white space left out. Never fails: what CEL refuses, its own parser says.
#[must_use]
pub(crate) fn tokens(text: &str) -> Vec<Token> {
    let mut found = Vec::new();
    let mut characters = text.char_indices().peekable();
    while let Some((start, character)) = characters.next() {
        if character.is_whitespace() {
            continue;
        }
        let mut end = start + character.len_utf8();
        let kind = if character == '"' || character == '\'' {
            let mut contents = String::new();
            while let Some((at, next)) = characters.next() {
                end = at + next.len_utf8();
                if next == character {
                    break;
                }
                contents.push(next);
                if next == '\\'
                    && let Some((at, escaped)) = characters.next()
                {
                    contents.push(escaped);
                    end = at + escaped.len_utf8();
                }
            }
            TokenKind::Quoted(contents)
        } else if character.is_alphabetic() || character == '_' {
            let mut word = String::from(character);
            while let Some((at, next)) = characters.next_if(|(_, next)| next.is_alphanumeric() || *next == '_') {
                word.push(next);
                end = at + next.len_utf8();
            }
            TokenKind::Word(word)
        } else if character.is_ascii_digit() {
            while let Some((at, next)) = characters.next_if(|(_, next)| next.is_alphanumeric()) {
                end = at + next.len_utf8();
            }
            TokenKind::Number
        } else {
            TokenKind::Mark(character)
        };
        found.push(Token { kind, start, end });
    }
    found
}

/// Undoes nothing but the escape of `${`: a text for a template that must come out as it is.
#[must_use]
pub(crate) fn escape(text: &str) -> String {
    text.replace("${", "$${")
}

/// A reference to a step's output in a compiled expression: `steps['network.vpc'].outputs.vpc_id`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Reference {
    /// The step's path name.
    pub(crate) step: String,
    /// The fields after `outputs`, as far as they are plain.
    pub(crate) fields: Vec<String>,
}

/// All references of a compiled expression, and whether the expression is nothing but one of them.
#[must_use]
pub(crate) fn references(expression: &str) -> (Vec<Reference>, bool) {
    let tokens = tokens(expression);
    let mut found = Vec::new();
    let mut whole = false;
    for (at, token) in tokens.iter().enumerate() {
        let after_dot = at.checked_sub(1).and_then(|at| tokens.get(at)).is_some_and(|t| t.kind == TokenKind::Mark('.'));
        if after_dot || token.kind != TokenKind::Word("steps".to_owned()) {
            continue;
        }
        let mut cursor = at + 1;
        let Some(step) = member(&tokens, &mut cursor) else { continue };
        let mut fields = Vec::new();
        if member(&tokens, &mut cursor).as_deref() == Some("outputs") {
            while let Some(field) = member(&tokens, &mut cursor) {
                fields.push(field);
            }
        }
        whole = at == 0 && cursor == tokens.len();
        found.push(Reference { step, fields });
    }
    (found, whole)
}

/// Reads `.name` or `['name']` at the cursor; leaves method calls (`.name(`) alone.
pub(crate) fn member(tokens: &[Token], cursor: &mut usize) -> Option<String> {
    let kind = |at: usize| tokens.get(at).map(|token| &token.kind);
    match (kind(*cursor), kind(*cursor + 1), kind(*cursor + 2)) {
        (Some(TokenKind::Mark('.')), Some(TokenKind::Word(_)), Some(TokenKind::Mark('('))) => None,
        (Some(TokenKind::Mark('.')), Some(TokenKind::Word(word)), _) => {
            *cursor += 2;
            Some(word.clone())
        }
        (Some(TokenKind::Mark('[')), Some(TokenKind::Quoted(word)), Some(TokenKind::Mark(']'))) => {
            *cursor += 3;
            Some(word.clone())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves that braces and quotes inside an expression do not end it, and that `$${` is plain text.
    #[test]
    fn pieces_end_where_expressions_end() {
        let cut = pieces("a-${ {'k': '}'}['k'] }-$${b}").expect("closed");
        assert_eq!(
            cut,
            vec![
                Piece::Text("a-".into()),
                Piece::Expression(" {'k': '}'}['k'] ".into(), 4),
                Piece::Text("-${b}".into())
            ]
        );
        assert_eq!(pieces("x${a"), Err(Unclosed { at: 1 }));
    }

    /// Proves that references are found in both spellings, with their fields, and not inside strings.
    #[test]
    fn references_are_found() {
        let (found, whole) = references("steps['a.b'].outputs.x.y");
        assert_eq!(found, vec![Reference { step: "a.b".into(), fields: vec!["x".into(), "y".into()] }]);
        assert!(whole);
        let (found, whole) = references("'steps.no' + steps.c.outputs.z.replace('a', 'b')");
        assert_eq!(found, vec![Reference { step: "c".into(), fields: vec!["z".into()] }]);
        assert!(!whole);
    }
}
