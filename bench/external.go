package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// nginxConf passes everything through: kept connections on both sides, bodies streamed, nothing logged or spooled.
// Arguments: user line, directory, address to listen on, address upstream.
const nginxConf = `%[1]sworker_processes auto;
daemon off;
pid %[2]s/nginx.pid;
error_log stderr crit;
events { worker_connections 1024; }
http {
  access_log off;
  client_body_temp_path %[2]s/nginx-body;
  proxy_temp_path %[2]s/nginx-proxy;
  fastcgi_temp_path %[2]s/nginx-fastcgi;
  uwsgi_temp_path %[2]s/nginx-uwsgi;
  scgi_temp_path %[2]s/nginx-scgi;
  client_max_body_size 0;
  client_body_buffer_size 64k;
  keepalive_requests 1000000000;
  tcp_nodelay on;
  upstream sink { server %[4]s; keepalive 256; keepalive_requests 1000000000; }
  server {
    listen %[3]s;
    location / {
      proxy_pass http://sink;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_request_buffering off;
      proxy_buffer_size 64k;
      proxy_buffers 8 64k;
      proxy_max_temp_file_size 0;
    }
  }
}
`

// haproxyConf does the same. Arguments: address to listen on, address upstream.
const haproxyConf = `global
  maxconn 1000
  tune.bufsize 65536
defaults
  mode http
  timeout connect 10s
  timeout client 5m
  timeout server 5m
  http-reuse always
frontend in
  bind %s
  default_backend sink
backend sink
  server sink %s
`

// external starts nginx and HAProxy in front of the sink, where they are installed.
func external(l *lab) (found []*child, err error) {
	up := strings.TrimPrefix(l.up, "http://")
	for _, p := range []struct {
		name string
		conf func(addr string) string
		args func(file string) []string
	}{
		{"nginx", func(addr string) string {
			user := ""
			if os.Geteuid() == 0 {
				user = "user root;\n" // the temporary directory is root's alone
			}
			return fmt.Sprintf(nginxConf, user, l.dir, addr, up)
		}, func(file string) []string { return []string{"-p", l.dir, "-e", "stderr", "-c", file} }},
		{"haproxy", func(addr string) string { return fmt.Sprintf(haproxyConf, addr, up) }, func(file string) []string { return []string{"-db", "-q", "-f", file} }},
	} {
		program, err := exec.LookPath(p.name)
		if err != nil {
			if program, err = exec.LookPath("/usr/sbin/" + p.name); err != nil {
				fmt.Fprintf(os.Stderr, "%s is not installed, so it has no rows\n", p.name)
				continue
			}
		}
		addr, err := freeAddr()
		if err != nil {
			return found, err
		}
		file := filepath.Join(l.dir, p.name+".conf")
		if err := os.WriteFile(file, []byte(p.conf(addr)), 0o600); err != nil {
			return found, err
		}
		cmd := exec.Command(program, p.args(file)...)
		cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
		if err := cmd.Start(); err != nil {
			return found, fmt.Errorf("%s: %w", p.name, err)
		}
		c := &child{name: p.name, addr: addr, cmd: cmd}
		found = append(found, c)
		if err := c.answers(); err != nil {
			return found, fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return found, nil
}

// freeAddr is a loopback address that nobody listens on.
func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// answers waits until the process takes connections.
func (c *child) answers() error {
	for range 500 {
		conn, err := net.Dial("tcp", c.addr)
		if err == nil {
			return conn.Close()
		}
		time.Sleep(10 * time.Millisecond)
	}
	return errors.New("it does not listen")
}
