//! What an answer is, said where its type says it, and not once more at each operation.

use utoipa::openapi::{Components, RefOr, Schema, path::Operation, schema::Object};

/// Gives each answer of `operation` that has no description that of its schema.
pub(super) fn describe(operation: &mut Operation, components: &Components) {
    for response in operation.responses.responses.values_mut() {
        let RefOr::T(response) = response else { continue };
        if !response.description.is_empty() {
            continue;
        }
        let schemas = response.content.values().filter_map(|content| match content {
            RefOr::T(content) => content.schema.as_ref(),
            RefOr::Ref(_) => None,
        });
        if let Some(description) = schemas.into_iter().find_map(|schema| description(schema, components)) {
            response.description = description;
        }
    }
}

fn description(schema: &RefOr<Schema>, components: &Components) -> Option<String> {
    match schema {
        RefOr::Ref(reference) => {
            let name = reference.ref_location.rsplit('/').next()?;
            description(components.schemas.get(name)?, components)
        }
        RefOr::T(Schema::Object(object)) => object.description.clone(),
        RefOr::T(Schema::OneOf(one_of)) => one_of.description.clone(),
        RefOr::T(Schema::AllOf(all_of)) => all_of.description.clone(),
        RefOr::T(_) => None,
    }
}

/// Describes the field by which the variants of a type are told apart: serde makes it, so it has no doc comment.
pub(super) fn describe_tags(schema: &mut RefOr<Schema>) {
    match schema {
        RefOr::T(Schema::OneOf(one_of)) => one_of.items.iter_mut().for_each(describe_tags),
        RefOr::T(Schema::AllOf(all_of)) => all_of.items.iter_mut().for_each(describe_tags),
        RefOr::T(Schema::Object(object)) => {
            object.properties.values_mut().filter_map(only_value).for_each(|tag| {
                tag.description.get_or_insert_with(|| "Which of these it is.".to_owned());
            });
        }
        RefOr::T(_) | RefOr::Ref(_) => {}
    }
}

/// A text that can only be one.
fn only_value(schema: &mut RefOr<Schema>) -> Option<&mut Object> {
    match schema {
        RefOr::T(Schema::Object(object)) if object.enum_values.as_ref().is_some_and(|values| values.len() == 1) => {
            Some(object)
        }
        _ => None,
    }
}
