# Letters and digits, so that it can stand in a URL as it is.
resource "random_password" "postgres" {
  length  = 48
  special = false
}

resource "aws_security_group" "postgres" {
  name_prefix = "${var.name}-postgres-"
  description = "Who reaches Postgres of ${var.name}"
  vpc_id      = data.aws_eks_cluster.this.vpc_config[0].vpc_id

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_vpc_security_group_ingress_rule" "postgres" {
  count = length(var.node_security_groups)

  security_group_id            = aws_security_group.postgres.id
  referenced_security_group_id = var.node_security_groups[count.index]
  ip_protocol                  = "tcp"
  from_port                    = 5432
  to_port                      = 5432
}

resource "aws_db_subnet_group" "postgres" {
  name_prefix = "${var.name}-"
  subnet_ids  = var.subnets
}

resource "aws_db_parameter_group" "postgres" {
  name_prefix = "${var.name}-"
  family      = "postgres${split(".", var.postgres.version)[0]}"

  # Whoever comes without TLS is refused.
  parameter {
    name  = "rds.force_ssl"
    value = "1"
  }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_db_instance" "postgres" {
  identifier_prefix = "${var.name}-"
  engine            = "postgres"
  engine_version    = var.postgres.version
  instance_class    = var.postgres.instance_class
  multi_az          = var.postgres.multi_az

  storage_type          = "gp3"
  storage_encrypted     = true
  allocated_storage     = var.postgres.storage_gb
  max_allocated_storage = var.postgres.storage_most_gb

  db_name  = "chancery"
  username = "chancery"
  password = random_password.postgres.result

  db_subnet_group_name   = aws_db_subnet_group.postgres.name
  parameter_group_name   = aws_db_parameter_group.postgres.name
  vpc_security_group_ids = [aws_security_group.postgres.id]
  publicly_accessible    = false
  ca_cert_identifier     = "rds-ca-rsa2048-g1"

  # The version is the one above until somebody changes it there.
  auto_minor_version_upgrade   = false
  backup_retention_period      = var.postgres.backup_days
  copy_tags_to_snapshot        = true
  deletion_protection          = var.postgres.protect_deletion
  skip_final_snapshot          = false
  final_snapshot_identifier    = "${var.name}-final"
  performance_insights_enabled = true
}
