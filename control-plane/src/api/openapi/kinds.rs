//! The handlers of resources are written once; here they are described once per kind, with the schema of its documents.

use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        Components, Content, Ref, RefOr, Schema,
        path::Operation,
        schema::{ArrayItems, Discriminator, ObjectBuilder, OneOfBuilder, Type},
    },
};
use utoipa_axum::router::OpenApiRouter;

use super::{super::Api, operations};
use crate::{
    api::view::{ResourceList, ResourceView},
    model::{
        Kind,
        wire::{EnvoyPatchSpec, FleetSpec, ListenerSpec, READ_ONLY, RateLimitSpec, RouteSpec, ServiceSpec, TeamSpec},
    },
};

/// `routes`, described as the operations of `kind`.
pub(in crate::api) fn of_kind(mut routes: OpenApiRouter<Api>, kind: Kind) -> OpenApiRouter<Api> {
    for item in routes.get_openapi_mut().paths.paths.values_mut() {
        for (_, operation) in operations(item) {
            describe(operation, kind);
        }
    }
    routes
}

fn describe(operation: &mut Operation, kind: Kind) {
    let word = word(kind);
    operation.tags = Some(vec![plural(kind)]);
    operation.operation_id = operation.operation_id.take().map(|verb| match verb.as_str() {
        "list" => format!("{verb}{}", plural(kind)),
        _ => format!("{verb}{kind}"),
    });
    operation.summary = operation.summary.take().map(|summary| summary.replace("resource", &word));
    let bodies = operation.request_body.iter_mut().filter_map(|body| match body {
        RefOr::T(body) => Some(body.content.values_mut()),
        RefOr::Ref(_) => None,
    });
    bodies.flatten().for_each(|content| retarget(content, kind));
    let answers = operation.responses.responses.values_mut().filter_map(|response| match response {
        RefOr::T(response) => Some(response.content.values_mut()),
        RefOr::Ref(_) => None,
    });
    answers.flatten().for_each(|content| retarget(content, kind));
}

/// The kind in a sentence: `rate limit`.
fn word(kind: Kind) -> String {
    kind.singular().replace('-', " ")
}

/// Many of the kind: `RateLimits`.
fn plural(kind: Kind) -> String {
    let ending = kind.collection().strip_prefix(kind.singular()).unwrap_or("s");
    format!("{kind}{ending}")
}

/// Lets what refers to any resource refer to one of `kind`.
fn retarget(content: &mut RefOr<Content>, kind: Kind) {
    let RefOr::T(Content { schema: Some(schema), .. }) = content else { return };
    let RefOr::Ref(Ref { ref_location, .. }) = &*schema else { return };
    if *ref_location == Ref::from_schema_name(ResourceView::name()).ref_location {
        *schema = reference(kind.as_str());
    } else if *ref_location == Ref::from_schema_name(ResourceList::name()).ref_location {
        *schema = reference(format!("{kind}List"));
    }
}

/// Adds the schema of every kind; a resource is one of them.
pub(super) fn add_schemas(components: &mut Components) {
    let mut schemas = Vec::new();
    for kind in Kind::ALL {
        match kind {
            Kind::Fleet => schemas.extend(schemas_of::<FleetSpec>()),
            Kind::Listener => schemas.extend(schemas_of::<ListenerSpec>()),
            Kind::Team => schemas.extend(schemas_of::<TeamSpec>()),
            Kind::Service => schemas.extend(schemas_of::<ServiceSpec>()),
            Kind::RateLimit => schemas.extend(schemas_of::<RateLimitSpec>()),
            Kind::Route => schemas.extend(schemas_of::<RouteSpec>()),
            Kind::EnvoyPatch => schemas.extend(schemas_of::<EnvoyPatchSpec>()),
        }
        schemas.push((kind.to_string(), document(kind)));
        schemas.push((format!("{kind}List"), list(kind)));
    }
    schemas.push((ResourceView::name().into_owned(), any()));
    components.schemas.extend(schemas);
    components.schemas.remove(ResourceList::name().as_ref());
}

fn schemas_of<T: ToSchema>() -> Vec<(String, RefOr<Schema>)> {
    let mut schemas = vec![(T::name().into_owned(), T::schema())];
    T::schemas(&mut schemas);
    schemas
}

/// A whole document of `kind`.
fn document(kind: Kind) -> RefOr<Schema> {
    let mut schema = ResourceView::schema();
    if let RefOr::T(Schema::Object(object)) = &mut schema {
        object.description = Some(format!("A {}.", word(kind)));
        let only = ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some("What it is."))
            .enum_values(Some([kind.as_str()]));
        object.properties.insert("kind".to_owned(), only.into());
        object.properties.insert("spec".to_owned(), reference(format!("{kind}Spec")));
        for field in READ_ONLY {
            if let Some(RefOr::T(Schema::Object(field))) = object.properties.get_mut(field) {
                field.read_only = Some(true);
            }
        }
    }
    schema
}

/// A page of documents of `kind`.
fn list(kind: Kind) -> RefOr<Schema> {
    let mut schema = ResourceList::schema();
    if let RefOr::T(Schema::Object(object)) = &mut schema
        && let Some(RefOr::T(Schema::Array(items))) = object.properties.get_mut("items")
    {
        items.items = ArrayItems::RefOrSchema(Box::new(reference(kind.as_str())));
    }
    schema
}

/// A document of any kind.
fn any() -> RefOr<Schema> {
    Kind::ALL
        .into_iter()
        .fold(OneOfBuilder::new(), |any, kind| any.item(reference(kind.as_str())))
        .discriminator(Some(Discriminator::new("kind")))
        .into()
}

fn reference(schema: impl Into<String>) -> RefOr<Schema> {
    RefOr::Ref(Ref::from_schema_name(schema))
}
