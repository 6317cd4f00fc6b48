package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// client sends requests over one kept connection. It is bare on purpose: what it costs, every ratio pays.
type client struct {
	addr string
	conn net.Conn
	r    *bufio.Reader
	head []byte
	buf  []byte
}

func newClient(addr string) *client { return &client{addr: addr, buf: make([]byte, 128<<10)} }

func (c *client) close() {
	if c.conn != nil {
		c.conn.Close()
	}
}

// answer is what came back.
type answer struct {
	total time.Duration
	first time.Duration // to the first byte of the reply's body
	size  int64
	body  []byte // when kept
}

// timeout bounds one exchange.
const timeout = 5 * time.Minute

// do sends one request. Anything but status 200 and a whole reply is an error. keep asks for the reply's body.
func (c *client) do(target string, header string, b *body, keep bool) (a answer, err error) {
	if c.conn == nil {
		if c.conn, err = net.Dial("tcp", c.addr); err != nil {
			return a, err
		}
		c.r = bufio.NewReaderSize(c.conn, 64<<10)
	}
	c.head = fmt.Appendf(c.head[:0], "POST %s HTTP/1.1\r\nHost: bench\r\nContent-Type: application/x-ndjson\r\n%sContent-Length: %d\r\n", target, header, b.wire())
	if b.gzip {
		c.head = append(c.head, "Content-Encoding: gzip\r\n"...)
	}
	c.head = append(c.head, "\r\n"...)
	begin := time.Now()
	c.conn.SetDeadline(begin.Add(timeout))
	switch {
	case b.data == nil:
		if _, err = c.conn.Write(c.head); err == nil {
			err = b.make(c.conn)
		}
	case len(b.data) < 64<<10:
		c.head = append(c.head, b.data...)
		_, err = c.conn.Write(c.head)
	default:
		_, err = (&net.Buffers{c.head, b.data}).WriteTo(c.conn)
	}
	if err != nil {
		return a, fmt.Errorf("sending: %w", err)
	}
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return a, fmt.Errorf("reply: %w", err)
	}
	defer resp.Body.Close()
	var kept bytes.Buffer
	for {
		n, err := resp.Body.Read(c.buf)
		if n > 0 && a.size == 0 {
			a.first = time.Since(begin)
		}
		a.size += int64(n)
		if keep || resp.StatusCode != http.StatusOK {
			kept.Write(c.buf[:n])
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return a, fmt.Errorf("reply: %w", err)
		}
	}
	a.total, a.body = time.Since(begin), kept.Bytes()
	if resp.StatusCode != http.StatusOK {
		return a, fmt.Errorf("status %d: %.300s", resp.StatusCode, a.body)
	}
	return a, nil
}
