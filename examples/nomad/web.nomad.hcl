# nomad job run web.nomad.hcl
job "web" {
  # A new image: one allocation after another, each healthy for 10 s first; back to the version before if one is not.
  update {
    max_parallel     = 1
    health_check     = "checks"
    min_healthy_time = "10s"
    healthy_deadline = "2m"
    auto_revert      = true
  }

  group "web" {
    count = 3

    network {
      port "http" { to = 8080 }
      port "hotwrap" { to = 9090 }
    }

    # hotwrap starts a crashed program itself; when it gives up it ends with the program's status, and that is counted here.
    restart {
      attempts = 3
      interval = "10m"
      delay    = "15s"
      mode     = "fail"
    }

    service {
      name     = "web"
      port     = "http"
      provider = "nomad"

      check {
        name     = "a generation serves"
        type     = "http"
        port     = "hotwrap"
        path     = "/ready"
        interval = "5s"
        timeout  = "2s"
      }
    }

    task "web" {
      driver = "docker"

      config {
        image      = "web:1"
        ports      = ["http", "hotwrap"]
        entrypoint = ["/bin/hotwrap"]
        args = [
          "--name=web", "--listen=8080", "--http=9090", "--stop-delay=10s", "--stop-timeout=30s",
          "--watch=${NOMAD_SECRETS_DIR}/tls.pem", "--", "/bin/echo",
        ]
      }

      # More than --stop-delay and --stop-timeout together.
      kill_signal  = "SIGTERM"
      kill_timeout = "45s"

      # hotwrap sees that the file has changed, and the verdict is in its log; Nomad need not signal anybody.
      template {
        data        = <<-EOT
          {{ with nomadVar "nomad/jobs/web" }}{{ .certificate }}{{ end }}
        EOT
        destination = "${NOMAD_SECRETS_DIR}/tls.pem"
        change_mode = "noop"
      }

      resources {
        memory     = 128
        memory_max = 256 # two generations, while one replaces the other
      }
    }
  }
}
