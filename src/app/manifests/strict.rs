//! A JSON value into a typed one, strictly: as the API server with `fieldValidation=Strict`, and with the field's name.
//!
//! Enters: a value and a type that says its fields to serde. Leaves: the typed value, and what is wrong, each with the path
//! of its field. `serde_ignored` and `serde_path_to_error` together would give path and unknown field too, but not the
//! fields that the type has, hence no did-you-mean.

use std::cell::RefCell;
use std::fmt;

use serde::de::value::{BorrowedStrDeserializer, StrDeserializer};
use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, Unexpected, VariantAccess,
    Visitor,
};
use serde_json::{Map, Number, Value};

use super::near::nearest;
use super::newer::is_newer;

/// Something wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// As in `spec.containers[0].image`; empty for the object as a whole.
    pub field: String,
    pub text: String,
}

/// # Errors
/// A value that does not fit the type. Unknown fields are no error here: they are in the second part of the answer.
pub fn read<'de, T: de::Deserialize<'de>>(value: &'de Value) -> Result<(T, Vec<Problem>), Problem> {
    let problems = RefCell::new(Vec::new());
    match T::deserialize(Reader { value, path: &Path::Root, problems: &problems }) {
        Ok(object) => Ok((object, problems.into_inner())),
        Err(Wrong { field, text }) => Err(Problem { field: field.unwrap_or_default(), text }),
    }
}

/// Texts of which the API server accepts few, where they change a verdict.
const CHOICES: &[(&str, &str, &[&str])] = &[
    ("Container", "imagePullPolicy", &["Always", "IfNotPresent", "Never"]),
    ("Container", "restartPolicy", &["Always", "OnFailure", "Never"]),
    ("EphemeralContainer", "imagePullPolicy", &["Always", "IfNotPresent", "Never"]),
    ("ImageVolumeSource", "pullPolicy", &["Always", "IfNotPresent", "Never"]),
    ("NodeSelectorRequirement", "operator", &["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]),
    ("PodOS", "name", &["linux", "windows"]),
    ("PodSpec", "restartPolicy", &["Always", "OnFailure", "Never"]),
    ("Taint", "effect", &["NoSchedule", "PreferNoSchedule", "NoExecute"]),
    ("Toleration", "effect", &["NoSchedule", "PreferNoSchedule", "NoExecute"]),
    ("Toleration", "operator", &["Exists", "Equal", "Gt", "Lt"]),
];

/// The way to a field, as a list on the stack.
enum Path<'p> {
    Root,
    Field(&'p Path<'p>, &'p str),
    Item(&'p Path<'p>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Field(Path::Root, name) => f.write_str(name),
            // A label's key holds dots and slashes of its own.
            Self::Field(parent, name) if name.contains(['.', '/']) => write!(f, "{parent}[{name}]"),
            Self::Field(parent, name) => write!(f, "{parent}.{name}"),
            Self::Item(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// What serde says, and where.
#[derive(Debug)]
struct Wrong {
    field: Option<String>,
    text: String,
}

impl Wrong {
    fn at(mut self, path: &Path<'_>) -> Self {
        self.field.get_or_insert_with(|| path.to_string());
        self
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Wrong {}

impl de::Error for Wrong {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self { field: None, text: text.to_string() }
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::custom(format_args!("expected {expected}, found {found}"))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::custom(wrong_choice(variant, expected))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::custom(format_args!("missing field {field}"))
    }
}

fn wrong_choice(found: &str, choices: &[&str]) -> String {
    let meant = nearest(found, choices.iter().copied()).map_or(String::new(), |near| format!("; did you mean {near}?"));
    format!("unknown value {found:?}, expected one of {}{meant}", choices.join(", "))
}

struct Reader<'de, 'p> {
    value: &'de Value,
    path: &'p Path<'p>,
    problems: &'p RefCell<Vec<Problem>>,
}

impl<'de> Reader<'de, '_> {
    fn number<V: Visitor<'de>>(number: &Number, visitor: V) -> Result<V::Value, Wrong> {
        if let Some(number) = number.as_i64() {
            visitor.visit_i64(number)
        } else if let Some(number) = number.as_u64() {
            visitor.visit_u64(number)
        } else {
            visitor.visit_f64(number.as_f64().unwrap_or(f64::NAN))
        }
    }

    fn map<V: Visitor<'de>>(
        self,
        of: Option<Struct>,
        map: &'de Map<String, Value>,
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        let Self { path, problems, .. } = self;
        visitor.visit_map(Fields { of, entries: map.iter(), current: None, path, problems })
    }

    fn list<V: Visitor<'de>>(self, list: &'de [Value], visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_seq(Items { items: list.iter().enumerate(), path: self.path, problems: self.problems })
    }
}

/// A whole number may be written `1.0`.
macro_rules! whole_numbers {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
            match self.value {
                Value::Number(number) if number.as_f64().is_some_and(|float| float.fract() == 0.0) && number.is_f64() => {
                    // Saturates, and then is out of the field's range.
                    visitor.visit_i64(number.as_f64().unwrap_or_default() as i64).map_err(|wrong: Wrong| wrong.at(self.path))
                }
                _ => self.deserialize_any(visitor),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Reader<'de, '_> {
    type Error = Wrong;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        let path = self.path;
        match self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Number(number) => Self::number(number, visitor),
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Array(list) => self.list(list, visitor),
            Value::Object(map) => self.map(None, map, visitor),
        }
        .map_err(|wrong: Wrong| wrong.at(path))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        if self.value.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Wrong> {
        let path = self.path;
        visitor.visit_newtype_struct(self).map_err(|wrong| wrong.at(path))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        let path = self.path;
        match self.value {
            Value::Object(map) => self.map(Some(Struct { name, fields }), map, visitor).map_err(|wrong| wrong.at(path)),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        match self.value {
            Value::String(text) => visitor.visit_enum(Choice(text)).map_err(|wrong| wrong.at(self.path)),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_unit()
    }

    whole_numbers! { deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 }

    serde::forward_to_deserialize_any! {
        bool i128 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map identifier
    }
}

/// A type of which the fields are known.
#[derive(Clone, Copy)]
struct Struct {
    name: &'static str,
    fields: &'static [&'static str],
}

impl Struct {
    /// Known, in this version or a later one. Our own resources do not name the two that every object has.
    fn knows(self, field: &str, path: &Path<'_>) -> bool {
        self.fields.contains(&field)
            || is_newer(self.name, field)
            || matches!((path, field), (Path::Root, "apiVersion" | "kind"))
    }

    /// Whether the value is one that the field can have, where they are few. An empty text is a field left out.
    fn wrong_choice(self, field: &str, value: &Value) -> Option<String> {
        let (_, _, choices) = CHOICES.iter().find(|(name, of, _)| *name == self.name && *of == field)?;
        let text = value.as_str().filter(|text| !text.is_empty() && !choices.contains(text))?;
        Some(wrong_choice(text, choices))
    }
}

/// Where the API server refuses what an object that is left empty in YAML becomes.
const NULL_IS_WRONG: [(&str, &str); 1] = [("NodeImagePolicySpec", "allowedImages")];

struct Fields<'de, 'p> {
    of: Option<Struct>,
    entries: serde_json::map::Iter<'de>,
    current: Option<(&'de str, &'de Value)>,
    path: &'p Path<'p>,
    problems: &'p RefCell<Vec<Problem>>,
}

impl<'de> MapAccess<'de> for Fields<'de, '_> {
    type Error = Wrong;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Wrong> {
        for (name, value) in self.entries.by_ref() {
            let path = Path::Field(self.path, name);
            if let Some(of) = self.of {
                if !of.knows(name, self.path) {
                    let meant = nearest(name, of.fields.iter().copied())
                        .map_or(String::new(), |near| format!("; did you mean {near}?"));
                    let text = format!("unknown field{meant}");
                    self.problems.borrow_mut().push(Problem { field: path.to_string(), text });
                    continue;
                }
                // `null` is what is not there, and then the default holds.
                if value.is_null() && !NULL_IS_WRONG.contains(&(of.name, name.as_str())) {
                    continue;
                }
                if let Some(text) = of.wrong_choice(name, value) {
                    return Err(Wrong { field: Some(path.to_string()), text });
                }
            }
            self.current = Some((name, value));
            return seed
                .deserialize(BorrowedStrDeserializer::new(name))
                .map(Some)
                .map_err(|wrong: Wrong| wrong.at(&path));
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Wrong> {
        let (name, value) = self.current.take().ok_or_else(|| de::Error::custom("a value without a key"))?;
        let path = Path::Field(self.path, name);
        seed.deserialize(Reader { value, path: &path, problems: self.problems }).map_err(|wrong| wrong.at(&path))
    }
}

struct Items<'de, 'p> {
    items: std::iter::Enumerate<std::slice::Iter<'de, Value>>,
    path: &'p Path<'p>,
    problems: &'p RefCell<Vec<Problem>>,
}

impl<'de> SeqAccess<'de> for Items<'de, '_> {
    type Error = Wrong;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Wrong> {
        let Some((index, value)) = self.items.next() else { return Ok(None) };
        let path = Path::Item(self.path, index);
        let item = seed.deserialize(Reader { value, path: &path, problems: self.problems });
        item.map(Some).map_err(|wrong| wrong.at(&path))
    }
}

/// An enum's variant without content: there are no others in the API.
struct Choice<'de>(&'de str);

impl<'de> EnumAccess<'de> for Choice<'de> {
    type Error = Wrong;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Wrong> {
        let text: StrDeserializer<'de, Wrong> = self.0.into_deserializer();
        Ok((seed.deserialize(text)?, self))
    }
}

impl<'de> VariantAccess<'de> for Choice<'de> {
    type Error = Wrong;

    fn unit_variant(self) -> Result<(), Wrong> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _: T) -> Result<T::Value, Wrong> {
        Err(de::Error::invalid_type(Unexpected::UnitVariant, &"newtype variant"))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Wrong> {
        Err(de::Error::invalid_type(Unexpected::UnitVariant, &visitor))
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value, Wrong> {
        Err(de::Error::invalid_type(Unexpected::UnitVariant, &visitor))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::k8s::crd::NodeImagePolicy;
    use k8s_openapi::api::apps::v1::Deployment;
    use k8s_openapi::api::core::v1::{Node, Pod};
    use serde_json::json;

    fn unknown<T: de::DeserializeOwned>(value: Value) -> Vec<(String, String)> {
        let (_, problems) = read::<T>(&value).expect("fits");
        problems.into_iter().map(|problem| (problem.field, problem.text)).collect()
    }

    fn wrong<T: de::DeserializeOwned + fmt::Debug>(value: Value) -> (String, String) {
        let problem = read::<T>(&value).expect_err("does not fit");
        (problem.field, problem.text)
    }

    #[test]
    fn an_unknown_field_is_named_with_its_path_and_with_the_one_that_was_meant() {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [{"name": "m", "imagePulPolicy": "Never"}]}});
        assert_eq!(
            unknown::<Pod>(pod),
            [("spec.containers[0].imagePulPolicy".into(), "unknown field; did you mean imagePullPolicy?".into())]
        );
        let pod = json!({"spec": {"containers": [], "zzz": 1, "nodename": "a"}});
        assert_eq!(
            unknown::<Pod>(pod),
            [
                ("spec.nodename".into(), "unknown field; did you mean nodeName?".into()),
                ("spec.zzz".into(), "unknown field".into()),
            ]
        );
    }

    #[test]
    fn a_value_of_a_wrong_kind_is_named_with_its_path() {
        assert_eq!(
            wrong::<Pod>(json!({"spec": {"containers": [{"name": "m", "image": 123}]}})),
            ("spec.containers[0].image".into(), "expected a string, found integer `123`".into())
        );
        assert_eq!(
            wrong::<Deployment>(json!({"spec": {"template": {"spec": {"containers": {"name": "m"}}}}})).0,
            "spec.template.spec.containers"
        );
        assert_eq!(
            wrong::<Pod>(json!({"metadata": {"labels": {"app.kubernetes.io/part-of": 1}}})).0,
            "metadata.labels[app.kubernetes.io/part-of]"
        );
        assert_eq!(wrong::<Pod>(json!({"spec": []})).0, "spec");
    }

    #[test]
    fn a_choice_that_does_not_exist_is_refused_as_the_api_server_does() {
        let (field, text) = wrong::<Pod>(json!({"spec": {"containers": [{"imagePullPolicy": "never"}]}}));
        assert_eq!(field, "spec.containers[0].imagePullPolicy");
        assert!(text.ends_with("did you mean Never?"), "{text}");
        let (field, text) =
            wrong::<NodeImagePolicy>(json!({"metadata": {"name": "p"}, "spec": {"enforcement": "Enforced"}}));
        assert_eq!(field, "spec.enforcement");
        assert!(text.contains("expected one of") && text.ends_with("did you mean Enforce?"), "{text}");
    }

    #[test]
    fn our_own_resources_are_read_as_strictly_and_nulls_are_defaults() {
        let policy = json!({"apiVersion": "pullguard.dev/v1alpha1", "kind": "NodeImagePolicy", "metadata": {"name": "p"},
            "spec": {"presence": {"onAbsnt": "Deny"}, "runtime": null, "templates": null, "remedies": null}});
        assert_eq!(
            unknown::<NodeImagePolicy>(policy),
            [("spec.presence.onAbsnt".into(), "unknown field; did you mean onAbsent?".into())]
        );
        let (field, _) = wrong::<NodeImagePolicy>(json!({"metadata": {}, "spec": {"runtime": {"expiry": "soon"}}}));
        assert_eq!(field, "spec.runtime.expiry");
        let (field, text) =
            wrong::<NodeImagePolicy>(json!({"metadata": {}, "spec": {"nodes": {"matchExpressions": [{"key": "a"}]}}}));
        assert_eq!((field.as_str(), text.as_str()), ("spec.nodes.matchExpressions[0]", "missing field operator"));
    }

    #[test]
    fn an_allowlist_of_which_every_item_was_commented_out_is_not_left_out() {
        let policy = json!({"metadata": {"name": "p"}, "spec": {"allowedImages": null}});
        let (policy, _) = read::<NodeImagePolicy>(&policy).expect("readable");
        assert_eq!(policy.spec.allowed_images, Some(None));
    }

    #[test]
    fn what_a_server_writes_and_what_later_servers_write_is_known() {
        let node = json!({"metadata": {"name": "n", "managedFields": [{"manager": "kubelet", "fieldsV1": {"f:status": {"f:x": {}}}}]},
            "spec": {}, "status": {"declaredFeatures": ["a"], "capacity": {"cpu": 2, "memory": "1Gi"}, "images": [{"names": null, "sizeBytes": 1}]}});
        assert_eq!(unknown::<Node>(node), []);
    }

    #[test]
    fn numbers_are_as_generous_as_in_the_api() {
        let pod = json!({"spec": {"terminationGracePeriodSeconds": 30.0, "containers": [{"resources": {"limits": {"cpu": 1, "memory": 1.5}},
            "livenessProbe": {"httpGet": {"port": 80}}, "readinessProbe": {"httpGet": {"port": "web"}}}]}});
        assert_eq!(unknown::<Pod>(pod), []);
    }
}
