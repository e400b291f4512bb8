// A small EventSource for Node, by the rules of the specification that matter here: Accept, CORS, the lines of a stream,
// connecting again. It runs a page's script: node eventsource.js SCRIPT ORIGIN, and says on stdout what the page does.
const http = require('http'), fs = require('fs'), vm = require('vm');

class EventSource {
  constructor(url) {
    this.url = url; this.listeners = {}; this.retry = 3000; this.lastEventId = '';
    this.connect();
  }
  addEventListener(name, fn) { (this.listeners[name] ||= []).push(fn); }
  connect() {
    const headers = { Accept: 'text/event-stream', Origin: process.argv[3] };
    if (this.lastEventId) headers['Last-Event-ID'] = this.lastEventId;
    http.get(this.url, { headers, agent: false }, res => {
      const allowed = res.headers['access-control-allow-origin'];
      if (res.statusCode !== 200 || !/^text\/event-stream/.test(res.headers['content-type']) ||
          (allowed !== '*' && allowed !== process.argv[3])) {
        console.log('refused', res.statusCode, res.headers['content-type'], allowed);
        process.exit(1);
      }
      let text = '', name = '', data = [];
      res.setEncoding('utf8');
      res.on('data', more => {
        const lines = (text + more).split('\n');
        text = lines.pop();
        for (const line of lines) {
          const at = line.indexOf(':');
          const field = at < 0 ? line : line.slice(0, at);
          const value = at < 0 ? '' : line.slice(at + 1).replace(/^ /, '');
          if (line === '') {
            if (data.length) for (const fn of this.listeners[name || 'message'] || []) fn({ data: data.join('\n'), lastEventId: this.lastEventId });
            name = ''; data = [];
          } else if (field === 'event') name = value;
          else if (field === 'data') data.push(value);
          else if (field === 'id') this.lastEventId = value;
          else if (field === 'retry' && /^\d+$/.test(value)) this.retry = +value;
        }
      });
      res.on('end', () => this.again());
      res.on('error', () => this.again());
    }).on('error', () => this.again());
  }
  again() {
    if (this.closed) return;
    console.log('again in', this.retry);
    setTimeout(() => this.connect(), Math.min(this.retry, 20));
  }
}

const page = {
  EventSource, JSON, console,
  location: { reload() { console.log('reload'); } },
};
vm.runInNewContext(fs.readFileSync(process.argv[2], 'utf8'), page);
