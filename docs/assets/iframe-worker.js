/* Search in pages that were opened as files: a browser starts no worker there, so its script runs in a hidden frame. */
(function () {
  if (location.protocol !== "file:") return
  window.Worker = class extends EventTarget {
    constructor(address) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.body.appendChild(frame)
      this.inner = frame.contentWindow
      this.inner.postMessage = data =>
        setTimeout(() => this.dispatchEvent(new MessageEvent("message", { data })))
      this.inner.importScripts = (...addresses) =>
        addresses.reduce((before, one) => before.then(() => this.load(one)), Promise.resolve())
      this.ready = this.load(address)
    }
    load(address) {
      return new Promise((loaded, failed) => {
        const script = this.inner.document.createElement("script")
        script.src = address
        script.onload = loaded
        script.onerror = failed
        this.inner.document.body.appendChild(script)
      })
    }
    postMessage(data) {
      this.ready.then(() => this.inner.dispatchEvent(new MessageEvent("message", { data })))
    }
    terminate() {
      this.inner.frameElement.remove()
    }
  }
})()
