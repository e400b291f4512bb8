// A node http server that inherits its socket as descriptor 3 and drains
// without losing a request. Node has no datagram sockets of the unix kind, so
// it says nothing to NOTIFY_SOCKET: that it serves is seen.

const fs = require('node:fs')
const http = require('node:http')
const net = require('node:net')

const idle = 1000 // ms that an unused keep-alive connection stays open while draining
let draining = false
const answers = new Set()

const server = http.createServer((req, res) => {
  const wait = Number(new URL(req.url, 'http://x').searchParams.get('ms') ?? 0)
  setTimeout(() => res.end(`generation ${process.env.HOTWRAP_GENERATION} pid ${process.pid}\n`), wait)
})

server.prependListener('request', (req, res) => {
  if (draining) res.setHeader('Connection', 'close')
  answers.add(res)
  res.on('close', () => answers.delete(res))
})

process.once('SIGTERM', () => {
  draining = true
  for (const res of answers) if (!res.headersSent) res.setHeader('Connection', 'close')
  // http's own close() would cut the idle keep-alive connections at once.
  net.Server.prototype.close.call(server, () => process.exit(0))
  setTimeout(() => server.closeIdleConnections(), idle)
})

server.listen(process.env.LISTEN_PID === String(process.pid) ? { fd: 3 } : { port: 8080 })
