// Searches run in a worker, and a browser gives none to a page that was opened from a disk: there a hidden frame does
// the work. Elsewhere this file does nothing. (The theme's own way would load a script from another host.)
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      this.waiting = []
      this.frame = document.createElement("iframe")
      this.frame.hidden = true
      document.body.append(this.frame)
      const scope = this.frame.contentWindow
      scope.importScripts = (...urls) => Promise.all(urls.map(one => this.load(one)))
      scope.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }))
      this.load(url).then(() => {
        this.ready = true
        this.waiting.splice(0).forEach(data => this.postMessage(data))
      })
    }

    load(url) {
      return new Promise((done, failed) => {
        const script = this.frame.contentDocument.createElement("script")
        script.src = new URL(url, document.baseURI)
        script.onload = done
        script.onerror = failed
        this.frame.contentDocument.head.append(script)
      })
    }

    postMessage(data) {
      if (this.ready) this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data }))
      else this.waiting.push(data)
    }

    terminate() {
      this.frame.remove()
    }
  }
}
