locals {
  database = "postgres://chancery:${random_password.postgres.result}@${aws_db_instance.postgres.endpoint}/chancery"
  store    = "rediss://:${random_password.redis.result}@${aws_elasticache_replication_group.redis.primary_endpoint_address}:6379"
}

resource "kubernetes_namespace_v1" "chancery" {
  metadata {
    name = var.namespace
    labels = {
      "pod-security.kubernetes.io/enforce" = "restricted"
      "pod-security.kubernetes.io/warn"    = "restricted"
    }
  }
}

# Named as values.yaml has them. Certificates and the administrator's token are not made here: deploy/kubernetes/secrets does that.
resource "kubernetes_secret_v1" "database" {
  metadata {
    name      = "chancery-managed-database"
    namespace = kubernetes_namespace_v1.chancery.metadata[0].name
  }

  data = {
    url = "${local.database}?sslmode=verify-full&sslrootcert=/etc/chancery/database/ca.crt"
  }
}

resource "kubernetes_config_map_v1" "database_ca" {
  metadata {
    name      = "chancery-managed-database-ca"
    namespace = kubernetes_namespace_v1.chancery.metadata[0].name
  }

  data = {
    "ca.crt" = file(var.rds_ca_file)
  }
}

# ElastiCache has certificates of a public authority, which the image knows.
resource "kubernetes_secret_v1" "store" {
  metadata {
    name      = "chancery-managed-store"
    namespace = kubernetes_namespace_v1.chancery.metadata[0].name
  }

  data = {
    url = local.store
  }
}

resource "helm_release" "chancery" {
  name      = "chancery"
  chart     = "${path.module}/../helm/chancery"
  namespace = kubernetes_namespace_v1.chancery.metadata[0].name
  values    = concat([file("${path.module}/values.yaml")], var.values)

  # Certificates come by hand, after the namespace and before this is through.
  timeout         = 900
  atomic          = true
  cleanup_on_fail = true

  depends_on = [
    kubernetes_config_map_v1.database_ca,
    kubernetes_secret_v1.database,
    kubernetes_secret_v1.store,
  ]
}
