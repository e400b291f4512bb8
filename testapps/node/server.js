// A node server that inherits its socket as descriptor 3 and drains without
// losing a request. It says nothing: that it is ready must be seen.

const fs = require('node:fs')
const http = require('node:http')
const net = require('node:net')

const idle = 1000 // ms that an unused connection may hold up a drain

const server = http.createServer((req, res) => {
  res.end(`generation ${process.env.HOTWRAP_GENERATION} pid ${process.pid}\n`)
})

let draining = false
const fresh = new Set() // connections without a request so far
const answers = new Set() // answers that are not complete
server.on('connection', (socket) => {
  fresh.add(socket)
  socket.on('close', () => fresh.delete(socket))
})
server.prependListener('request', (req, res) => {
  if (draining) res.setHeader('Connection', 'close')
  fresh.delete(req.socket)
  answers.add(res)
  res.on('close', () => answers.delete(res))
})
process.once('SIGTERM', () => {
  draining = true
  for (const res of answers) if (!res.headersSent) res.setHeader('Connection', 'close')
  // The close() of http would cut the idle connections at once; that of net does not.
  net.Server.prototype.close.call(server, () => process.exit(0))
  setTimeout(() => {
    server.closeIdleConnections()
    for (const socket of fresh) socket.destroy()
  }, idle)
})

server.listen(process.env.LISTEN_PID === String(process.pid) ? { fd: 3 } : { port: 8080 })

// The test that started this holds the other end of the fifo: end with it. One
// that never had a writer is not reported as at its end, so it is read once first.
if (process.env.TESTAPP_LIFELINE) {
  const fd = fs.openSync(process.env.TESTAPP_LIFELINE, fs.constants.O_RDONLY | fs.constants.O_NONBLOCK)
  try {
    if (fs.readSync(fd, Buffer.alloc(1)) === 0) process.exit(1)
  } catch (err) {
    if (err.code !== 'EAGAIN') throw err
  }
  new net.Socket({ fd, readable: true, writable: false }).on('close', () => process.exit(1)).resume().unref()
}
