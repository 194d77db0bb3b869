//! References to steps inside expressions: names become path names, outputs are checked against the kinds' schemas, and
//! outputs of modules are put in.

use super::bind::wrap;
use super::{Place, Reported};
use crate::evaluate;
use crate::expand::{Each, Expander, Local};
use crate::finding::near;
use crate::shape::Shape;
use crate::template::{Token, TokenKind, member};
use serde_json::Value;

impl Expander<'_> {
    #[expect(clippy::too_many_arguments, reason = "the cursor's state; a struct would only rename it")]
    pub(super) fn steps(
        &mut self,
        instance: usize,
        each: Option<&Each>,
        text: &str,
        tokens: &[Token],
        start: usize,
        cursor: &mut usize,
        place: &Place,
    ) -> Result<Option<String>, Reported> {
        let Some(token) = tokens.get(start) else { return Err(Reported) };
        let name = match member(tokens, cursor) {
            Some(name) => name,
            None => self.computed(instance, each, text, tokens, token, cursor, place)?,
        };
        let named = tokens.get(start + 2).unwrap_or(token);
        let Some(local) = self.local(instance, &name) else {
            let mut hint = self.near_local(instance, &name);
            if hint.is_empty() && self.instances.get(instance).is_some_and(|found| found.call.is_some()) {
                hint = "a module sees only its own steps; hand other values in as inputs".to_owned();
            }
            return Err(self.unknown(place, named, format!("there is no step '{name}'"), hint));
        };
        if member(tokens, cursor).as_deref() != Some("outputs") {
            let hint = format!("write steps['{name}'].outputs.<name>");
            return Err(self.unknown(
                place,
                named,
                format!("what of step '{name}'? Only its outputs can be used"),
                hint,
            ));
        }
        match &local {
            Local::Step(path) => {
                self.check_outputs(path, &name, tokens, *cursor, place)?;
                Ok(Some(format!("steps[{}].outputs", single(path))))
            }
            _ => {
                let output = tokens.get(*cursor + 1).unwrap_or(named).clone();
                let at = *cursor;
                let Some(wanted) = member(tokens, cursor) else {
                    let message = format!("name the output of '{name}' that is meant");
                    return Err(self.unknown(place, named, message, String::new()));
                };
                self.group_output(&local, &name, &wanted, &output, (tokens, at), place).map(Some)
            }
        }
    }

    fn group_output(
        &mut self,
        local: &Local,
        name: &str,
        wanted: &str,
        token: &Token,
        tokens: (&[Token], usize),
        place: &Place,
    ) -> Result<String, Reported> {
        match local {
            Local::Step(path) => {
                self.check_outputs(path, name, tokens.0, tokens.1, place)?;
                Ok(format!("steps[{}].outputs[{}]", single(path), single(wanted)))
            }
            Local::Repeated(all) => {
                let mut items = Vec::new();
                for (_, local) in all {
                    items.push(self.group_output(
                        local,
                        name,
                        wanted,
                        token,
                        (tokens.0, tokens.0.len().min(tokens.1)),
                        place,
                    )?);
                }
                Ok(format!("[{}]", items.join(", ")))
            }
            Local::Module(child) => {
                let Some(document) = self.document(*child) else { return Err(Reported) };
                let Some((_, node)) = document.outputs.iter().find(|(key, _)| key.text == wanted) else {
                    let hint = near(wanted, document.outputs.iter().map(|(key, _)| key.text.as_str()));
                    let message = format!("module '{}' ({name}) has no output '{wanted}'", document.name.text);
                    return Err(self.unknown(place, token, message, hint));
                };
                self.nested(*child, None, node).map(|text| wrap(&text)).ok_or(Reported)
            }
        }
    }

    /// The name in `steps[<expression>]`, which must be known before the run.
    #[expect(clippy::too_many_arguments, reason = "the cursor's state; a struct would only rename it")]
    fn computed(
        &mut self,
        instance: usize,
        each: Option<&Each>,
        text: &str,
        tokens: &[Token],
        token: &Token,
        cursor: &mut usize,
        place: &Place,
    ) -> Result<String, Reported> {
        let message = "name the step: steps.<name> or steps['<name>']";
        if tokens.get(*cursor).is_none_or(|next| next.kind != TokenKind::Mark('[')) {
            return Err(self.unknown(place, token, message.to_owned(), String::new()));
        }
        let mut depth = 0_usize;
        let mut end = *cursor;
        for (at, next) in tokens.iter().enumerate().skip(*cursor) {
            match next.kind {
                TokenKind::Mark('[') => depth += 1,
                TokenKind::Mark(']') => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 {
                end = at;
                break;
            }
        }
        let (from, to) = (tokens.get(*cursor).map_or(0, |t| t.end), tokens.get(end).map_or(0, |t| t.start));
        let inner = text.get(from..to).unwrap_or("").trim();
        let place = Place { base: place.base.map(|base| base + from), ..place.clone() };
        let compiled = self.compile(instance, each, inner, &place, false)?;
        *cursor = end + 1;
        match evaluate::expression(&compiled, &self.constants(each)) {
            Ok(Value::String(name)) => Ok(name),
            _ => Err(self.unknown(
                &place,
                token,
                message.to_owned(),
                "the name must be text known before the run".to_owned(),
            )),
        }
    }

    fn check_outputs(
        &mut self,
        path: &str,
        name: &str,
        tokens: &[Token],
        at: usize,
        place: &Place,
    ) -> Result<(), Reported> {
        let Some(description) = self.kinds.get(path).and_then(|kind| self.catalog.description(kind)) else {
            return Ok(());
        };
        let kind = description.name.clone();
        let mut shape = Shape::new(&description.outputs_schema);
        let mut cursor = at;
        loop {
            let token = tokens.get(cursor + 1).cloned();
            let (Some(wanted), Some(token)) = (member(tokens, &mut cursor), token) else { return Ok(()) };
            match shape.member(&wanted) {
                Ok(Some(inner)) => shape = inner,
                Ok(None) => return Ok(()),
                Err(fields) => {
                    let hint = near(&wanted, fields.iter().map(String::as_str));
                    let message = format!("step '{name}' ({kind}) has no output '{wanted}'");
                    return Err(self.unknown(place, &token, message, hint));
                }
            }
        }
    }
}

fn single(text: &str) -> String {
    format!("'{text}'")
}
