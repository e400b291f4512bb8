// Command lines serves like echo, and meanwhile writes LINES numbered lines to stdout and as many to stderr,
// in pieces that end anywhere:
//
//	<GENERATION.out NUMBER xxx>
//
// On TERM it finishes all of them, and the very last without its newline. With PAUSE it waits for so long
// after each thousand.
package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"hotwrap/testapps/internal/app"
)

func main() {
	app.Lifeline()
	count, err := strconv.Atoi(os.Getenv("LINES"))
	if err != nil {
		app.Fail(fmt.Errorf("cannot read LINES: %w", err))
	}
	stop := app.Stop()
	listeners := app.Open()
	generation := os.Getenv("HOTWRAP_GENERATION")
	var writers sync.WaitGroup
	writers.Go(func() { write(os.Stdout, generation+".out", count) })
	writers.Go(func() { write(os.Stderr, generation+".err", count) })
	app.Notify("READY=1")
	app.Serve(app.Server("lines"), listeners, stop, app.Idle())
	writers.Wait()
}

// write writes the lines, up to 3000 bytes at once.
func write(f *os.File, name string, count int) {
	pause := app.Duration("PAUSE", 0)
	for first := 0; first < count; first += 1000 {
		var text bytes.Buffer
		for i := first; i < min(first+1000, count); i++ {
			fmt.Fprintf(&text, "<%s %d %s>\n", name, i, strings.Repeat("x", i%100))
		}
		if first+1000 >= count {
			text.Truncate(text.Len() - 1)
		}
		for text.Len() > 0 {
			if _, err := f.Write(text.Next(1 + rand.IntN(3000))); err != nil {
				app.Fail(err)
			}
		}
		time.Sleep(pause)
	}
}
