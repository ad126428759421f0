output "namespace" {
  description = "Where the programs run."
  value       = kubernetes_namespace_v1.chancery.metadata[0].name
}

output "postgres_endpoint" {
  description = "Host and port of Postgres."
  value       = aws_db_instance.postgres.endpoint
}

output "redis_endpoint" {
  description = "Host of the primary of Redis."
  value       = aws_elasticache_replication_group.redis.primary_endpoint_address
}

output "database_url" {
  description = "The URL of Postgres with its password, as --database takes it."
  value       = local.database
  sensitive   = true
}

output "store_url" {
  description = "The URL of Redis with its password, as --store takes it."
  value       = local.store
  sensitive   = true
}
