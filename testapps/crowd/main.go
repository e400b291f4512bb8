// Command crowd PATH COUNT makes so many connections to a unix socket and holds them: every other asks nothing, the
// rest half a question. Then it says so, and ends on TERM.
package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strconv"

	"hotwrap/testapps/internal/app"
)

func main() {
	app.Lifeline()
	stop := app.Stop()
	most, err := strconv.Atoi(os.Args[2])
	if err != nil {
		app.Fail(err)
	}
	var all []net.Conn
	for n := range most {
		conn, err := net.Dial("unix", os.Args[1])
		if err != nil {
			app.Fail(fmt.Errorf("client %d: %w", n, err))
		}
		all = append(all, conn)
		if n%2 == 0 {
			_, _ = io.WriteString(conn, "POST /restart HTTP/1.1\r\nHost: x\r\nX-Slow: ") // it may be closed by now
		}
	}
	app.Notify(fmt.Sprintf("STATUS=%d clients wait", len(all)))
	<-stop
	runtime.KeepAlive(all)
}
