variable "region" {
  description = "Region of AWS, such as eu-central-1."
  type        = string

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "A region is written as eu-central-1."
  }
}

variable "name" {
  description = "What everything made here is called."
  type        = string
  default     = "chancery"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,29}[a-z0-9]$", var.name))
    error_message = "2 to 31 lower-case letters, digits and '-', the first a letter and the last no '-'."
  }
}

variable "tags" {
  description = "Tags of everything made here, beside application."
  type        = map(string)
  default     = {}
}

variable "cluster" {
  description = "Name of the EKS cluster that the programs run in."
  type        = string

  validation {
    condition     = length(var.cluster) > 0
    error_message = "An EKS cluster has a name."
  }
}

variable "namespace" {
  description = "Namespace that the programs run in; made here."
  type        = string
  default     = "chancery"

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", var.namespace))
    error_message = "A namespace is a DNS label."
  }
}

variable "subnets" {
  description = "Private subnets of the cluster's network, in two zones or more: where Postgres and Redis are."
  type        = list(string)

  validation {
    condition     = length(var.subnets) >= 2 && alltrue([for id in var.subnets : startswith(id, "subnet-")])
    error_message = "Two subnets or more, as subnet-…"
  }
}

variable "node_security_groups" {
  description = "Security groups of the cluster's nodes, or of its pods: who may reach Postgres and Redis."
  type        = list(string)

  validation {
    condition     = length(var.node_security_groups) > 0 && alltrue([for id in var.node_security_groups : startswith(id, "sg-")])
    error_message = "One security group or more, as sg-…"
  }
}

variable "rds_ca_file" {
  description = "File with the authorities of RDS: AWS publishes it as global-bundle.pem."
  type        = string

  validation {
    condition     = fileexists(var.rds_ca_file)
    error_message = "There is no such file."
  }
}

variable "postgres" {
  description = "The size of Postgres, and how long it is remembered what was in it."
  type = object({
    instance_class   = optional(string, "db.t4g.medium")
    version          = optional(string, "17.6")
    storage_gb       = optional(number, 20)
    storage_most_gb  = optional(number, 100)
    backup_days      = optional(number, 14)
    multi_az         = optional(bool, true)
    protect_deletion = optional(bool, true)
  })
  default = {}

  validation {
    condition     = var.postgres.backup_days >= 1 && var.postgres.backup_days <= 35
    error_message = "Backups are kept 1 to 35 days."
  }

  validation {
    condition     = var.postgres.storage_gb >= 20 && var.postgres.storage_most_gb >= var.postgres.storage_gb
    error_message = "Storage is 20 GB or more, and what it may grow to is no less."
  }

  validation {
    condition     = tonumber(split(".", var.postgres.version)[0]) >= 15
    error_message = "Postgres is 15 or newer."
  }
}

variable "redis" {
  description = "The size of Redis: one primary and its replicas."
  type = object({
    node_type = optional(string, "cache.t4g.small")
    version   = optional(string, "7.1")
    nodes     = optional(number, 2)
  })
  default = {}

  validation {
    condition     = var.redis.nodes >= 2 && var.redis.nodes <= 6
    error_message = "2 to 6 nodes: one alone has none to take its place."
  }
}

variable "values" {
  description = "More values of the chart, as YAML: deploy/helm/chancery/values.yaml says which there are."
  type        = list(string)
  default     = []
}
