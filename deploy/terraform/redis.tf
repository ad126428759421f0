resource "random_password" "redis" {
  length  = 64
  special = false
}

resource "aws_security_group" "redis" {
  name_prefix = "${var.name}-redis-"
  description = "Who reaches Redis of ${var.name}"
  vpc_id      = data.aws_eks_cluster.this.vpc_config[0].vpc_id

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_vpc_security_group_ingress_rule" "redis" {
  count = length(var.node_security_groups)

  security_group_id            = aws_security_group.redis.id
  referenced_security_group_id = var.node_security_groups[count.index]
  ip_protocol                  = "tcp"
  from_port                    = 6379
  to_port                      = 6379
}

resource "aws_elasticache_subnet_group" "redis" {
  name       = var.name
  subnet_ids = var.subnets
}

resource "aws_elasticache_parameter_group" "redis" {
  name   = var.name
  family = "redis${split(".", var.redis.version)[0]}"

  # Rather a counter that ends soon is forgotten than a limiter without an answer.
  parameter {
    name  = "maxmemory-policy"
    value = "volatile-ttl"
  }
}

resource "aws_elasticache_replication_group" "redis" {
  replication_group_id = var.name
  description          = "What the rate limiters of ${var.name} have counted"

  engine               = "redis"
  engine_version       = var.redis.version
  node_type            = var.redis.node_type
  num_cache_clusters   = var.redis.nodes
  parameter_group_name = aws_elasticache_parameter_group.redis.name
  subnet_group_name    = aws_elasticache_subnet_group.redis.name
  security_group_ids   = [aws_security_group.redis.id]

  automatic_failover_enabled = true
  multi_az_enabled           = true
  at_rest_encryption_enabled = true
  transit_encryption_enabled = true
  auth_token                 = random_password.redis.result
  # Counters live for seconds: nothing of them is worth a snapshot.
  snapshot_retention_limit = 0
}
