//! Columns shown beside rows: predictions and labels of neighbours and examples.

use std::collections::HashMap;

use serde_json::Value;

use crate::cli::Result;
use crate::operands::Wanted;
use crate::{ChunkReader, Demand, IntermediateKey};

/// The keys of lists, which are divided at commas outside of quotes and of brackets: a name may hold one, and a cell does.
pub fn keys(lists: &[String]) -> Vec<String> {
    lists.iter().flat_map(|list| divided(list)).collect()
}

fn divided(list: &str) -> Vec<String> {
    let mut keys = vec![String::new()];
    let (mut quoted, mut depth) = (false, 0_u32);
    for c in list.chars() {
        let Some(key) = keys.last_mut() else { break };
        // A quote is one where a part begins, and behind another, which is then one in a name.
        let may_open = key.trim_start().is_empty() || key.ends_with(['.', '@', '"']);
        match c {
            ',' if !quoted && depth == 0 => {
                keys.push(String::new());
                continue;
            }
            '"' if quoted || may_open => quoted = !quoted,
            '[' if !quoted => depth += 1,
            ']' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
        key.push(c);
    }
    keys.into_iter().map(|key| key.trim().to_string()).collect()
}

/// Values of some operands for some rows.
pub struct Beside {
    names: Vec<String>,
    values: HashMap<u64, Vec<Option<String>>>,
}

impl Beside {
    /// Reads operands, relative to the model of `near`, for `rows`; a tensor of several columns shows its largest.
    pub fn open(
        reader: &ChunkReader<'_>,
        near: Option<&IntermediateKey>,
        operands: &[String],
        rows: &[u64],
        demand: Demand,
    ) -> Result<Self> {
        let near = near.map(|near| reader.store().intermediate(near)).transpose()?;
        let mut rows = rows.to_vec();
        rows.sort_unstable();
        rows.dedup();
        let mut values: HashMap<u64, Vec<Option<String>>> = HashMap::new();
        for operand in operands {
            let found = reader.operand(near.as_ref(), operand, Wanted::Name)?.argmax_of_many(reader)?;
            let scan = reader.operand_scan(&found, demand)?;
            let mut texts = scan.texts(&rows)?.into_iter();
            for row in &rows {
                values.entry(*row).or_default().push(texts.next().flatten());
            }
        }
        Ok(Self { names: operands.to_vec(), values })
    }

    /// Titles with those of the operands behind.
    pub fn titles(&self, titles: &[&str]) -> Vec<String> {
        titles.iter().map(ToString::to_string).chain(self.names.iter().map(|n| format!(">{n}"))).collect()
    }

    /// Cells with those of a row behind.
    pub fn cells(&self, row: u64, mut cells: Vec<String>) -> Vec<String> {
        let values = self.values.get(&row).into_iter().flatten();
        cells.extend(values.map(|v| v.clone().unwrap_or_else(|| "-".into())));
        cells
    }

    /// An object with a row's values added.
    pub fn json(&self, row: u64, mut object: Value) -> Value {
        if let Some(map) = object.as_object_mut() {
            for (name, value) in self.names.iter().zip(self.values.get(&row).into_iter().flatten()) {
                map.insert(name.clone(), value.clone().map_or(Value::Null, Value::String));
            }
        }
        object
    }
}

#[cfg(test)]
mod tests {
    use super::divided;

    #[test]
    fn lists_are_divided_outside_of_quotes_and_brackets() {
        for (list, keys) in [
            ("logits,label", &["logits", "label"][..]),
            ("logits, label", &["logits", "label"][..]),
            (r#""t.t"."a,b""#, &[r#""t.t"."a,b""#][..]),
            (r#"t."a,b",t.c,"x,y"@"1,2".z"#, &[r#"t."a,b""#, "t.c", r#""x,y"@"1,2".z"#][..]),
            (r#"t."a"",b",c"#, &[r#"t."a"",b""#, "c"][..]),
            (r#"t.a"b,c"#, &[r#"t.a"b"#, "c"][..]),
            ("conv1.u5[2,3],label", &["conv1.u5[2,3]", "label"][..]),
            ("", &[""][..]),
        ] {
            assert_eq!(divided(list), keys, "{list}");
        }
    }
}
